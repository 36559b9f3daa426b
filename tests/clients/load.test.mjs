// A hundred sessions of each client, eight at a time on two browsers: all are served, none finds anything of
// another, and the pool is afterwards as it was before.
//
//   node --test tests/clients/load.test.mjs
//
// POOL_CLI names the binary (default target/debug/pool-cli), SESSIONS how many sessions each client has.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { serve } from '../site/server.mjs';
import { eventually, startPool } from './lib/pool.mjs';
import { script } from './lib/script.mjs';

const SESSIONS = process.env.SESSIONS ?? '100';
const CLIENTS = {
  'Playwright': ['load.mjs', '--client', 'playwright'],
  'Puppeteer': ['load.mjs', '--client', 'puppeteer'],
  'Playwright for Python': ['load.py'],
};

let site;
let pool;

before(async () => {
  site = await serve();
  pool = await startPool({ pool: { min_size: 2, max_size: 2, max_use_count: 10_000 } });
});
after(async () => {
  await pool?.stop();
  await site?.close();
});

const idle = async () => {
  const { pressure } = await pool.get('/pressure');
  return pressure.running === 0 && pressure.queued === 0;
};

for (const [client, [name, ...parameters]] of Object.entries(CLIENTS)) {
  test(`${SESSIONS} sessions of ${client} are served clean browsers`, async () => {
    await eventually(idle);
    // The first lease of a browser starts processes that stay, so it is not the state to come back to.
    await script(name, [pool.url, site.url, '--sessions', '8', '--concurrency', '8', '--timeout', '60000', ...parameters]);
    await eventually(idle);
    const before = pool.resources();

    const run = await script(name, [pool.url, site.url, '--sessions', SESSIONS, '--concurrency', '8', '--timeout', '60000', ...parameters]);
    const failed = run.lines.filter((line) => line.ok === false);
    assert.deepEqual(failed, [], run.stderr);
    assert.equal(run.lines.at(-1).ok, Number(SESSIONS));

    await eventually(idle);
    await eventually(() => Math.abs(pool.resources().files - before.files) <= 4);
    await eventually(() => Math.abs(pool.resources().processes - before.processes) <= 2);
  });
}
