// `/pdf` of a small local page, beside launching a Chromium for each PDF with Puppeteer, and under load.
//
//   node tests/bench-work/run.mjs [--pool-cli target/release/pool-cli] [--calls 30] [--clients 16]
//        [--seconds 120] [--engine shell]
//
// Prints what each takes at its median, what a call takes more than the page's own load, and, of the load: calls,
// errors, median, 99th percentile, the first and the last thousand, and the memory of the pool and its browsers.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { once } from 'node:events';
import { parseArgs } from 'node:util';
import puppeteer from '../clients/node_modules/puppeteer-core/lib/puppeteer/puppeteer-core.js';
import { executable } from '../clients/lib/chromium.mjs';

const { values } = parseArgs({
  options: {
    'pool-cli': { type: 'string', default: 'target/release/pool-cli' },
    calls: { type: 'string', default: '30' },
    clients: { type: 'string', default: '16' },
    seconds: { type: 'string', default: '120' },
    engine: { type: 'string', default: 'shell' },
  },
});
process.env.POOL_CLI = values['pool-cli'];
const { startPool } = await import('../clients/lib/pool.mjs');

const PAGE = `<!doctype html><title>Invoice</title><h1>Invoice</h1>${'<p>A line of an invoice.</p>'.repeat(20)}`;
const site = createServer((_, answer) => answer.setHeader('content-type', 'text/html').end(PAGE)).listen(0, '127.0.0.1');
await once(site, 'listening');
const url = `http://127.0.0.1:${site.address().port}/`;

const sorted = (numbers) => [...numbers].sort((a, b) => a - b);
const quantile = (numbers, q) => sorted(numbers)[Math.min(numbers.length - 1, Math.floor(numbers.length * q))];
const ms = (number) => `${number.toFixed(1)} ms`;
const timed = async (work) => {
  const begun = performance.now();
  await work();
  return performance.now() - begun;
};
/** Time between one call and the next, in ms: several times what a lease takes to be cleaned and made anew. */
const REST = 400;

/** Times each of several works once, in turn, so that a machine that changes its speed changes it for all; `count` times. */
const turns = async (count, works) => {
  const times = works.map(() => []);
  for (let i = 0; i < count; i += 1) {
    for (const [n, work] of works.entries()) {
      // What the one before left to be ended or made ready is not this one's to pay for.
      await new Promise((resolve) => setTimeout(resolve, REST));
      times[n].push(await timed(work));
    }
  }
  return times;
};
const args = process.getuid() === 0 ? ['--no-sandbox'] : [];
const launch = () => puppeteer.launch({
  executablePath: executable(values.engine), headless: values.engine === 'shell' ? 'shell' : true, args,
});

const pool = await startPool({ pool: { min_size: 4, max_size: 16, lease: 'shared' }, chrome: { engine: values.engine } });
const http = pool.url.replace('ws:', 'http:');
const pdf = async () => {
  const answer = await fetch(`${http}pdf`, {
    method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ url }),
  });
  const bytes = Buffer.from(await answer.arrayBuffer());
  assert.equal(answer.status, 200, bytes.toString());
  assert.equal(bytes.subarray(0, 5).toString(), '%PDF-');
};

const browser = await launch();
await turns(5, [pdf]);
const measured = await turns(Number(values.calls), [
  pdf,
  async () => {
    const own = await launch();
    const page = await own.newPage();
    await page.goto(url);
    await page.pdf();
    await own.close();
  },
  async () => {
    const page = await browser.newPage();
    await page.goto(url);
    await page.close();
  },
]);
await browser.close();
const [call, direct, load] = measured.map((times) => quantile(times, 0.5));
console.log(`/pdf                              ${ms(call)}`);
console.log(`Chromium launched for each PDF    ${ms(direct)}   ${(call / direct).toFixed(2)} of it`);
console.log(`a new page and its load           ${ms(load)}   ${ms(call - load)} more`);

const memory = async () => {
  const metrics = await (await fetch(`${http}metrics`)).text();
  const browsers = Number(/^browserpool_browser_memory_bytes\S* (\S+)$/m.exec(metrics)[1]);
  const own = Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pool.pid}/status`, 'utf8'))[1]);
  return { pool: own / 1024, browsers: browsers / 2 ** 20 };
};
const times = [];
let errors = 0;
const until = performance.now() + Number(values.seconds) * 1000;
const marks = [];
const watch = setInterval(async () => marks.push(await memory()), 5000);
await Promise.all(Array.from({ length: Number(values.clients) }, async () => {
  while (performance.now() < until) {
    try {
      times.push(await timed(pdf));
    } catch (error) {
      errors += 1;
      if (errors === 1) console.error(error);
    }
  }
}));
clearInterval(watch);
const part = Math.min(1000, Math.floor(times.length / 3));
const [p50, p99] = [quantile(times, 0.5), quantile(times, 0.99)];
const thirds = [marks.slice(0, Math.ceil(marks.length / 3)), marks.slice(-Math.ceil(marks.length / 3))];
const mean = (list, name) => list.reduce((sum, mark) => sum + mark[name], 0) / list.length;
console.log(`${values.clients} at a time for ${values.seconds} s: ${times.length} calls, ${errors} errors, ${(times.length / values.seconds).toFixed(1)}/s`);
console.log(`p50 ${ms(p50)}, p99 ${ms(p99)}, ${(p99 / p50).toFixed(1)} times as long`);
console.log(`the first ${part}: p50 ${ms(quantile(times.slice(0, part), 0.5))}; the last: ${ms(quantile(times.slice(-part), 0.5))}`);
for (const name of ['pool', 'browsers']) {
  console.log(`memory of the ${name}: ${thirds.map((third) => `${mean(third, name).toFixed(0)} MiB`).join(' in the first third, ')} in the last`);
}
console.log(JSON.stringify({ call, direct, load, calls: times.length, errors, p50, p99 }));
site.close();
await pool.stop();
process.exit(errors === 0 ? 0 : 1);
