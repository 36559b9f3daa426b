// Clients that come and go as those of a busy afternoon do: so many at once, each with a page open for a while.

import { chromium } from 'playwright-core';
import { setTimeout as delay } from 'node:timers/promises';

const CLIENTS = [
  { query: 'tenant=shop&trackingId=price-check&priority=5', page: 'tall.html' },
  { query: 'tenant=billing&trackingId=invoice-pdf&priority=2', page: 'form.html' },
  { query: 'tenant=search&trackingId=crawl&priority=8', page: 'index.html' },
  { query: 'tenant=ci&trackingId=nightly', page: 'storage.html' },
];

/** Every so many, somebody comes who stays. */
const RARE = { query: 'tenant=support&profile=work&priority=3', page: 'title.html', hold: [20_000, 40_000] };
const RARITY = 16;

/** Keeps `many(second)` clients at the pool until `stop` is called, which resolves once all are gone. */
export function traffic(pool, site, many) {
  const clients = new Set();
  const stopping = new AbortController();
  const { signal } = stopping;
  const begun = performance.now();
  let number = 0;

  async function client() {
    const { query, page: name, hold = [1_000, 6_000] } = number % RARITY === 3 ? RARE : CLIENTS[number % CLIENTS.length];
    const share = ((number * 37) % 100) / 100;
    number += 1;
    let browser;
    try {
      browser = await chromium.connectOverCDP(`${pool.url}?${query}`);
      const page = await browser.contexts()[0].newPage();
      await page.goto(`${site.url}/${name}`);
      await delay(hold[0] + (hold[1] - hold[0]) * share, null, { signal });
    } catch {
      // Its browser was taken away, or all is over: the next one comes in any case.
    } finally {
      await browser?.close();
    }
  }

  const running = (async () => {
    while (!signal.aborted) {
      const wanted = many((performance.now() - begun) / 1000);
      while (clients.size < wanted) {
        const one = client().finally(() => clients.delete(one));
        clients.add(one);
      }
      await delay(100);
    }
    await Promise.all(clients);
  })();
  return { stop: () => { stopping.abort(); return running; } };
}
