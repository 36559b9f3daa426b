// Large answers and a client that is busy while much comes, from Puppeteer: what a plain Chromium survives.
//
//   node tests/clients/big.mjs CDP_URL [--rounds N] [--only ROW,ROW]
//
// Each round of a row is a connection of its own. Prints {row, round, ok, ms, error} for each.

import { parseArgs } from 'node:util';
import puppeteer from 'puppeteer-core';
import { Raw } from './raw.mjs';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { rounds: { type: 'string', default: '1' }, only: { type: 'string' } },
});
const [cdp] = positionals;
const MB = 1_000_000;

/** A row on a page of a browser that is connected for it. */
const onPage = (run) => async () => {
  const browser = await puppeteer.connect({ browserWSEndpoint: cdp, protocolTimeout: 60_000 });
  const gone = new Promise((_, reject) => browser.once('disconnected', () => reject(new Error('the lease ended'))));
  gone.catch(() => {});
  await Promise.race([run(await browser.newPage()), gone]);
  await browser.close();
};

const answers = (count, size) => onPage(async (page) => {
  const evaluate = () => page.evaluate((length) => 'x'.repeat(length), size);
  const lengths = (await Promise.all(Array.from({ length: count }, evaluate))).map((text) => text.length);
  if (lengths.some((length) => length !== size)) throw new Error(`answers of ${lengths}`);
});

const ROWS = {
  'two of 20 MB': answers(2, 20 * MB),
  'four of 9 MB': answers(4, 9 * MB),
  'eight of 6 MB': answers(8, 6 * MB),
  'busy for 3 s': onPage(async (page) => {
    let heard = 0;
    page.on('console', (message) => (heard += message.text().length));
    const said = page.evaluate(() => {
      for (let i = 0; i < 80; i += 1) console.log('x'.repeat(500_000));
    });
    // Long enough for the page to begin.
    await new Promise((resolve) => setTimeout(resolve, 50));
    const until = Date.now() + 3000;
    while (Date.now() < until);
    await said;
    while (heard < 40 * MB) await new Promise((resolve) => setTimeout(resolve, 10));
  }),
  'a command of 106 MB': async () => {
    const raw = await Raw.connect(cdp);
    raw.write(JSON.stringify({ id: 1, method: 'Runtime.evaluate', params: { expression: 'x'.repeat(106 * MB) } }));
    const { code } = await raw.closed;
    if (code !== 1009) throw new Error(`closed with ${code}`);
  },
};

for (const [row, run] of Object.entries(ROWS)) {
  if (values.only && !values.only.split(',').includes(row)) continue;
  for (let round = 1; round <= Number(values.rounds); round += 1) {
    const began = performance.now();
    let error;
    try {
      await run();
    } catch (caught) {
      error = String(caught);
    }
    console.log(JSON.stringify({ row, round, ok: error === undefined, ms: Math.round(performance.now() - began), error }));
  }
}
