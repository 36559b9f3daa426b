// One of several clients in one Chromium: makes pages and marks that bear its name, and tells what it sees.
//
//   node tests/clients/neighbour.mjs CDP_URL SITE_URL --name NAME [--client playwright|puppeteer]
//
// Prints a line once its pages are there. Then it takes commands from stdin, one a line, and answers each with
// a line of JSON: `look` with {titles, targets, cookies, storage}, `close` with {} after `browser.close()`.

import { createInterface } from 'node:readline';
import { parameters } from './lib/steps.mjs';

const { cdp, site, name, client } = parameters({
  name: { type: 'string' },
  client: { type: 'string', default: 'playwright' },
});
const at = (words) => `${site}/title/${name}-${words}`;
/** Runs in a page: leaves marks, and lets the site hear that the page lives. */
const mark = (own) => {
  document.cookie = `who=${own}; Path=/`;
  localStorage.setItem('who', own);
  setInterval(() => fetch(`/echo?beat=${own}`), 100);
};

const CLIENTS = {
  async playwright() {
    const { chromium } = await import('playwright-core');
    const browser = await chromium.connectOverCDP(cdp);
    const second = () => browser.newContext();
    const first = browser.contexts()[0];
    const contexts = () => browser.contexts();
    const session = await browser.newBrowserCDPSession();
    return { browser, first, second, contexts, session };
  },
  async puppeteer() {
    const { default: puppeteer } = await import('puppeteer-core');
    const browser = await puppeteer.connect({ browserWSEndpoint: cdp });
    const second = () => browser.createBrowserContext();
    const first = browser.defaultBrowserContext();
    const contexts = () => browser.browserContexts();
    const session = await browser.target().createCDPSession();
    return { browser, first, second, contexts, session };
  },
};

const { browser, first, second, contexts, session } = await CLIENTS[client]();
// The page that every lease begins with.
const [page] = await first.pages();
await page.goto(at('page'));
await page.evaluate(mark, name);
const popup = new Promise((resolve) => page.once('popup', resolve));
await page.evaluate((url) => void window.open(url), at('popup'));
await popup;
const other = await (await second()).newPage();
await other.goto(at('second'));
await other.evaluate(mark, name);
console.log('{}');

const COMMANDS = {
  async look() {
    const pages = (await Promise.all(contexts().map((context) => context.pages()))).flat();
    const cookies = (await Promise.all(contexts().map((context) => context.cookies()))).flat();
    const { targetInfos } = await session.send('Target.getTargets');
    return {
      titles: await Promise.all(pages.map((held) => held.title())),
      targets: targetInfos.filter(({ type }) => type === 'page').map(({ title }) => title),
      cookies: cookies.map((cookie) => cookie.value),
      storage: await page.evaluate(() => ({ ...localStorage })),
    };
  },
  async close() {
    await browser.close();
    return {};
  },
};

for await (const line of createInterface({ input: process.stdin })) {
  console.log(JSON.stringify(await COMMANDS[line]()));
}
process.exit(0);
