// A client that leaves something behind and comes back for it: asked by stdin, a line for a line.
//
//   node tests/clients/comeback.mjs CDP SITE [--client playwright|puppeteer]
//   leave            makes a page in the default context, marks it, and answers
//   stop fetch       … and holds back a request of it; also: debugger, dialog
//   find             waits until the marked page has gone on, and says what is left of it
//   where            asks the pool by `Browserless.reconnect` where to come back to
//   close            closes the browser, as the client does it

import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';

const { positionals, values } = parseArgs({
  allowPositionals: true,
  options: { client: { type: 'string', default: 'playwright' } },
});
const [cdp, site] = positionals;
const within = (promise, ms, what) => {
  let timer;
  const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error(`not within ${ms} ms: ${what}`)), ms); });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
};

async function playwright() {
  const { chromium } = await import('playwright-core');
  const browser = await chromium.connectOverCDP(cdp);
  const context = browser.contexts()[0];
  return {
    pages: () => context.pages(),
    newPage: () => context.newPage(),
    holdRequests: (page) => page.route('**/held', () => {}),
    onDialog: (page, told) => page.on('dialog', told),
    session: (page) => context.newCDPSession(page),
    close: () => browser.close(),
  };
}

async function puppeteer() {
  const { default: library } = await import('puppeteer-core');
  const browser = await library.connect({ browserWSEndpoint: cdp, defaultViewport: null });
  return {
    pages: () => browser.pages(),
    newPage: () => browser.newPage(),
    async holdRequests(page) {
      await page.setRequestInterception(true);
      page.on('request', (request) => request.url().endsWith('/held') || request.continue());
    },
    onDialog: (page, told) => page.on('dialog', told),
    session: (page) => page.createCDPSession(),
    close: () => browser.close(),
  };
}

const client = await { playwright, puppeteer }[values.client]();
let page;

const stops = {
  async fetch() {
    await client.holdRequests(page);
    const asked = page.waitForRequest((request) => request.url().endsWith('/held'));
    await page.evaluate(() => { fetch('/held').finally(() => { window.after = 'fetched'; }); });
    await asked;
  },
  async debugger() {
    const session = await client.session(page);
    const paused = new Promise((resolve) => session.on('Debugger.paused', resolve));
    await session.send('Debugger.enable');
    await session.send('Runtime.evaluate', { expression: 'setTimeout(() => { debugger; window.after = "resumed"; })' });
    await paused;
  },
  async dialog() {
    const opened = new Promise((resolve) => client.onDialog(page, resolve));
    await page.evaluate(() => { setTimeout(() => { window.after = String(confirm('?')); }); });
    await opened;
  },
};

const answers = {
  async leave() {
    page = await client.newPage();
    await page.goto(`${site}/title/left`);
    await page.evaluate(() => { window.mark = 7; document.cookie = 'login=yes'; });
    return {};
  },
  async stop(how) {
    await stops[how]();
    return {};
  },
  async find() {
    for (const found of await client.pages()) {
      // A page that stands still does not even tell its title.
      const left = await within(found.evaluate(() => ({ title: document.title, mark: window.mark })), 10_000, 'a page answers');
      if (left.title !== 'left') continue;
      // Not before: the blank first page of a lease has no cookies to read.
      left.cookie = await found.evaluate(() => document.cookie);
      const after = await within(found.evaluate(() => new Promise((resolve) => {
        const look = () => (window.after ? resolve(window.after) : setTimeout(look, 10));
        setTimeout(() => resolve(null), 3000);
        look();
      })), 10_000, 'the page goes on');
      return { ...left, after };
    }
    return { pages: (await client.pages()).length };
  },
  async where() {
    const session = await client.session((await client.pages())[0] ?? (await client.newPage()));
    return session.send('Browserless.reconnect', { timeout: 30_000 });
  },
  async close() {
    await client.close();
    return {};
  },
};

console.log('{"ready":true}');
for await (const line of createInterface({ input: process.stdin })) {
  const [word, ...rest] = line.split(' ');
  const answer = await answers[word](...rest).catch((error) => ({ error: String(error.stack) }));
  console.log(JSON.stringify(answer));
}
process.exit();
