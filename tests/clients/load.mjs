// Many sessions, some at a time: each leases a browser, looks for what another left behind, leaves a mark
// of its own, takes a screenshot and gives the browser back.
//
//   node tests/clients/load.mjs CDP_URL SITE_URL [--client playwright|puppeteer|puppeteer-24]
//        [--sessions 100] [--concurrency 8] [--context default|new]
//
// One JSON line a session, then a summary; ends with 1 unless every session was good. `--context new` is
// for a plain Chromium, whose default context all its clients share.

import { randomUUID } from 'node:crypto';
import { parameters, expect, pngSize, within } from './lib/steps.mjs';

const options = parameters({
  client: { type: 'string', default: 'playwright' },
  sessions: { type: 'string', default: '100' },
  concurrency: { type: 'string', default: '8' },
  context: { type: 'string', default: 'default' },
});
const { cdp, site } = options;

/** What differs between the clients: how to connect, to get a context, and its pages. */
const CLIENTS = {
  async playwright() {
    const { chromium } = await import('playwright-core');
    return {
      connect: () => chromium.connectOverCDP(cdp),
      context: (browser) => (options.context === 'new' ? browser.newContext() : browser.contexts()[0]),
      pages: (context) => context.pages(),
    };
  },
  puppeteer: () => puppeteer('puppeteer-core'),
  'puppeteer-24': () => puppeteer('puppeteer-core-24'),
};

async function puppeteer(library) {
  const { default: lib } = await import(library);
  return {
    connect: () => lib.connect({ browserWSEndpoint: cdp }),
    context: (browser) => (options.context === 'new' ? browser.createBrowserContext() : browser.defaultBrowserContext()),
    pages: (context) => context.pages(),
  };
}

/** One session; the time of each part in milliseconds. */
async function session(client) {
  const times = {};
  let last = performance.now();
  const lap = (part) => {
    const now = performance.now();
    times[part] = Math.round(now - last);
    last = now;
  };

  const browser = await client.connect();
  lap('connect');
  try {
    const context = await client.context(browser);
    const leftPages = (await client.pages(context)).filter((page) => page.url() !== 'about:blank').map((page) => page.url());
    const leftCookies = (await context.cookies()).map(({ name, value }) => `${name}=${value}`);
    const page = await context.newPage();
    lap('page');
    await page.goto(`${site}/title.html`);
    expect((await page.title()) === 'A page with a title', 'the wrong title');
    lap('goto');

    const mark = randomUUID();
    const foreign = await page.evaluate((own) => {
      const found = [document.cookie, ...Object.entries(localStorage).map((entry) => entry.join('='))].filter(Boolean);
      document.cookie = `mark=${own}; Max-Age=3600; Path=/`;
      localStorage.setItem('mark', own);
      return found;
    }, mark);
    const leaks = [...leftPages, ...leftCookies, ...foreign];
    expect(leaks.length === 0, `LEAK ${leaks.join(' ')}`);
    await page.reload();
    const kept = await page.evaluate(() => [document.cookie, localStorage.getItem('mark')]);
    expect(kept[0] === `mark=${mark}` && kept[1] === mark, `its own mark is gone: ${kept}`);
    lap('mark');

    pngSize(await page.screenshot());
    lap('screenshot');
    await page.close();
    if (options.context === 'new') await context.close();
  } finally {
    // Puppeteer's close() would end a browser that is not leased.
    await (options.context === 'new' && browser.disconnect ? browser.disconnect() : browser.close());
  }
  lap('close');
  return times;
}

const client = await CLIENTS[options.client]();
const total = Number(options.sessions);
const took = [];
let next = 0;
let failed = 0;
let leaks = 0;

async function worker() {
  while (next < total) {
    const number = next;
    next += 1;
    const begun = performance.now();
    const line = { session: number, ok: true };
    try {
      Object.assign(line, await within(options.timeout, session(client)));
    } catch (error) {
      failed += 1;
      const message = String(error?.message ?? error);
      if (message.startsWith('LEAK')) leaks += 1;
      Object.assign(line, { ok: false, error: message });
    }
    line.ms = Math.round(performance.now() - begun);
    took.push(line.ms);
    console.log(JSON.stringify(line));
  }
}

const begun = performance.now();
await Promise.all(Array.from({ length: Number(options.concurrency) }, worker));
took.sort((a, b) => a - b);
const percentile = (p) => took[Math.min(took.length - 1, Math.floor(took.length * p))];
const seconds = Math.round(performance.now() - begun) / 1000;
console.log(JSON.stringify({
  client: options.client, sessions: total, ok: total - failed, failed, leaks, p50: percentile(0.5), p99: percentile(0.99), seconds,
}));
process.exit(failed === 0 ? 0 : 1);
