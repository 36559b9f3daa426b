// npm install puppeteer-core && node puppeteer.mjs
import puppeteer from 'puppeteer-core';

const browser = await puppeteer.connect({
  browserWSEndpoint: process.env.CDP_URL ?? 'ws://127.0.0.1:3000/?priority=1',
});
const page = await browser.newPage();

await page.goto(process.env.PAGE_URL ?? 'data:text/html,<title>Hello from the pool</title>');
console.log(await page.title());
await page.screenshot({ path: 'puppeteer.png' });

await browser.close(); // gives the browser back; the next lease finds it clean
