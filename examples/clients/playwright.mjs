// npm install playwright-core && node playwright.mjs
import { chromium } from 'playwright-core';

const browser = await chromium.connectOverCDP(process.env.CDP_URL ?? 'ws://127.0.0.1:3000/?priority=1');
const page = await browser.newPage();

await page.goto(process.env.PAGE_URL ?? 'data:text/html,<title>Hello from the pool</title>');
console.log(await page.title());
await page.screenshot({ path: 'playwright.png' });

await browser.close(); // gives the browser back; the next lease finds it clean
