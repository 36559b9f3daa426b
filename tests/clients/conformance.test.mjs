// The same client does the same through the pool as on a Chromium of its own, step by step.
//
//   node --test tests/clients/conformance.test.mjs
//
// POOL_CLI names the binary (default target/debug/pool-cli), LEASES the kinds of lease (default exclusive).

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { serve } from '../site/server.mjs';
import { differences } from './compare.mjs';
import { executable, launch } from './lib/chromium.mjs';
import { startPool } from './lib/pool.mjs';
import { script } from './lib/script.mjs';

const CLIENTS = {
  'Playwright': ['playwright.mjs'],
  'Puppeteer 25': ['puppeteer.mjs'],
  'Puppeteer 24': ['puppeteer.mjs', '--library', 'puppeteer-core-24'],
  'Playwright for Python': ['playwright_py.py'],
};
const LEASES = (process.env.LEASES ?? 'exclusive').split(',');
/** What a kind of lease refuses on purpose: a trace tells of every page of the Chromium. */
const REFUSED = { exclusive: [], shared: ['tracing'] };
// The shell puts frames of other sites in processes of their own only if it is told to.
const ISOLATE = '--site-per-process';

for (const engine of ['shell', 'chromium']) {
  describe(`on ${engine}`, { skip: executable(engine) ? false : 'not installed' }, () => {
    let site;
    let chromium;
    const pools = {};

    before(async () => {
      site = await serve();
      chromium = await launch(engine, [ISOLATE]);
      for (const lease of LEASES) {
        pools[lease] = await startPool({ pool: { lease, min_size: 1, max_size: 2 }, chrome: { engine, args: [ISOLATE] } });
      }
    });
    after(async () => {
      for (const pool of Object.values(pools)) await pool.stop();
      await chromium?.close();
      await site?.close();
    });

    for (const [client, [name, ...parameters]] of Object.entries(CLIENTS)) {
      const run = (endpoint) => script(name, [endpoint, site.url, '--timeout', '60000', ...parameters]);
      let direct;
      for (const lease of LEASES) {
        test(`${client} does the same through ${lease} leases as directly`, async () => {
          direct ??= await run(chromium.url);
          const pooled = await run(pools[lease].url);
          assert.ok(direct.lines.length > 20, `the script itself failed: ${direct.stderr}`);
          assert.deepEqual(differences(direct.lines, pooled.lines, REFUSED[lease]), []);
          for (const step of REFUSED[lease]) {
            const line = pooled.lines.find((candidate) => candidate.step === step);
            if (line) assert.match(line.error, /not available in a shared browser lease/);
          }
        });
      }
    }
  });
}
