// One session of a client: it leases a browser, looks for what another left behind, leaves a mark of its own,
// takes a screenshot and gives the browser back.

import { randomUUID } from 'node:crypto';
import { script } from './script.mjs';
import { expect, pngSize, within } from './steps.mjs';

/**
 * The clients by name. Each is `{ connect(cdp), context(browser, fresh), pages(context) }`; a `fresh` context is
 * for a plain Chromium, whose default context all its clients share. One that is a program of its own is
 * `{ session({ cdp, site }) }`.
 */
export const CLIENTS = {
  async playwright() {
    const { chromium } = await import('playwright-core');
    return {
      connect: (cdp) => chromium.connectOverCDP(cdp),
      context: (browser, fresh) => (fresh ? browser.newContext() : browser.contexts()[0]),
      pages: (context) => context.pages(),
    };
  },
  puppeteer: () => puppeteer('puppeteer-core'),
  'puppeteer-24': () => puppeteer('puppeteer-core-24'),
  chromiumoxide: () => ({ session: chromiumoxide }),
};

async function puppeteer(library) {
  const { default: lib } = await import(library);
  return {
    connect: (cdp) => lib.connect({ browserWSEndpoint: cdp }),
    context: (browser, fresh) => (fresh ? browser.createBrowserContext() : browser.defaultBrowserContext()),
    pages: (context) => context.pages(),
  };
}

async function chromiumoxide({ cdp, site }) {
  const { code, lines, stderr } = await script('chromiumoxide-client', [cdp, site, '--only', 'marks,screenshots']);
  for (const { ok, step, error, result } of lines) {
    expect(ok, `${step}: ${error}`);
    expect(step !== 'marks' || result.found === '{}', `LEAK ${result?.found}`);
  }
  expect(code === 0, `it ended with ${code}: ${stderr}`);
  return Object.fromEntries(lines.map(({ step, ms }) => [step, ms]));
}

/**
 * Resolves to how long each part took, in milliseconds; an error that begins with LEAK tells what was found.
 * The browser is given back after `limit` milliseconds at the latest: a page that has died may never answer.
 */
export async function session(client, { cdp, site, fresh = false, limit = 60_000 }) {
  if (client.session) return client.session({ cdp, site });
  const times = {};
  let last = performance.now();
  const lap = (part) => {
    const now = performance.now();
    times[part] = Math.round(now - last);
    last = now;
  };

  const browser = await client.connect(cdp);
  lap('connect');
  const use = async () => {
    const context = await client.context(browser, fresh);
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
    if (fresh) await context.close();
  };
  try {
    await within(limit, use());
  } finally {
    // Puppeteer's close() would end a browser that is not leased.
    await (fresh && browser.disconnect ? browser.disconnect() : browser.close());
  }
  lap('close');
  return times;
}
