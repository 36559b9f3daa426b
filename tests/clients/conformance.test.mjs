// The same client does the same through the pool as on a Chromium of its own, step by step.
//
//   node --test tests/clients/conformance.test.mjs
//
// POOL_CLI names the binary (default target/debug/pool-cli), EXAMPLES the folder of the client that is
// built (default target/debug/examples/), LEASES the kinds of lease (default all): exclusive, shared, and relayed,
// which is an exclusive one of another node of a fleet.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { serve } from '../site/server.mjs';
import { differences } from './compare.mjs';
import { FIRST_PAGE, executable, launch } from './lib/chromium.mjs';
import { startFleet, startPool } from './lib/pool.mjs';
import { script } from './lib/script.mjs';

const CLIENTS = {
  'Playwright': ['playwright.mjs'],
  'Puppeteer 25': ['puppeteer.mjs'],
  'Puppeteer 24': ['puppeteer.mjs', '--library', 'puppeteer-core-24'],
  'Playwright for Python': ['playwright_py.py'],
  'chromiumoxide': ['chromiumoxide-client'],
};
const LEASES = (process.env.LEASES ?? 'exclusive,shared,relayed').split(',');
/** What a kind of lease refuses on purpose: a trace tells of every page of the Chromium. */
const REFUSED = { exclusive: [], shared: ['tracing'], relayed: [] };
// The shell puts frames of other sites in processes of their own only if it is told to.
const ISOLATE = '--site-per-process';

for (const engine of ['shell', 'chromium']) {
  describe(`on ${engine}`, { skip: executable(engine) ? false : 'not installed' }, () => {
    let site;
    let files;
    const pools = {};

    before(async () => {
      site = await serve();
      files = mkdtempSync(join(tmpdir(), 'browser-pool-files-'));
      for (const lease of LEASES) {
        // Where the scripts keep what they upload and download; an exclusive lease needs no leave.
        const directories = lease === 'shared' ? [files] : [];
        const start = lease === 'relayed' ? startFleet : startPool;
        pools[lease] = await start({
          pool: { lease: lease === 'shared' ? lease : 'exclusive', min_size: 1, max_size: 2 },
          chrome: { engine, args: [ISOLATE], directories },
        });
      }
    });
    after(async () => {
      for (const pool of Object.values(pools)) await pool.stop();
      await site?.close();
      if (files) rmSync(files, { recursive: true, force: true });
    });

    for (const [client, [name, ...parameters]] of Object.entries(CLIENTS)) {
      const run = (endpoint) => {
        const dir = mkdtempSync(join(files, 'run-'));
        return script(name, [endpoint, site.url, '--timeout', '60000', '--dir', dir, ...parameters]);
      };
      // Puppeteer's close() ends a Chromium that is not leased, so each run has one of its own.
      const runDirectly = async () => {
        const chromium = await launch(engine, [ISOLATE, FIRST_PAGE]);
        return run(chromium.url).finally(chromium.close);
      };
      let direct;
      for (const lease of LEASES) {
        test(`${client} does the same through ${lease} leases as directly`, async () => {
          direct ??= runDirectly();
          const [{ lines: expected, stderr }, { lines: pooled }] = await Promise.all([direct, run(pools[lease].url)]);
          assert.ok(expected.length > 20, `the script itself failed: ${stderr}`);
          const different = differences(expected, pooled, REFUSED[lease]);
          assert.equal(different.map((difference) => JSON.stringify(difference)).join('\n'), '');
          for (const step of REFUSED[lease]) {
            const line = pooled.find((candidate) => candidate.step === step);
            if (line) assert.match(line.error, /not available in a shared browser lease/);
          }
        });
      }
    }
  });
}
