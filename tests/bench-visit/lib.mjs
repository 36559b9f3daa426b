// What the peers share: their command line, how their browser is launched, and what they write.
//
//   node PEER.mjs URLS.txt --out results.jsonl --engine shell|chromium --concurrency 4

import { readFileSync, writeFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { executable, flags } from '../clients/lib/chromium.mjs';

/** The arguments of a peer: `{ urls, out, concurrency, launch }`, `launch` for Puppeteer and Playwright alike. */
export function parameters(extra = {}) {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      out: { type: 'string' },
      engine: { type: 'string', default: 'shell' },
      concurrency: { type: 'string', default: '4' },
      ...extra,
    },
  });
  return {
    ...values,
    urls: readFileSync(positionals[0], 'utf8').split('\n').filter(Boolean),
    concurrency: Number(values.concurrency),
    // --no-startup-window is among the flags, so there is no first page for Puppeteer to wait for.
    launch: { executablePath: executable(values.engine), args: flags(values.engine), headless: true, waitForInitialPage: false },
  };
}

/** Visits one URL with a page of its own: the same questions, and the same condition, for every peer. */
export async function visit(page, url) {
  const begun = performance.now();
  const response = await page.goto(url, { waitUntil: 'load' });
  const title = await page.title();
  return { url, status: response.status(), title, final_url: page.url(), ms: Math.round(performance.now() - begun) };
}

/** Writes the results, and on stdout how long it took without the start of Node and its imports. */
export function finish(out, results, begun) {
  writeFileSync(out, results.map((result) => `${JSON.stringify(result)}\n`).join(''));
  console.log(JSON.stringify({ work_ms: Math.round(performance.now() - begun) }));
}
