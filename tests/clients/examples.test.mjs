// The example clients run as they stand, against a pool.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { copyFileSync, existsSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { join } from 'node:path';
import { tmpdir } from 'node:os';
import { after, before, test } from 'node:test';
import { promisify } from 'node:util';
import { startPool } from './lib/pool.mjs';

const HERE = new URL('.', import.meta.url).pathname;
const EXAMPLES = new URL('../../examples/clients/', import.meta.url).pathname;
const EXPECTED = {
  'playwright.mjs': [process.execPath, 'playwright.png'],
  'puppeteer.mjs': [process.execPath, 'puppeteer.png'],
  'playwright_sync.py': [`${HERE}.venv/bin/python`, 'playwright.png'],
};

let pool;
let folder;

before(async () => {
  pool = await startPool({ pool: { min_size: 1, max_size: 2 } });
  folder = mkdtempSync(join(tmpdir(), 'browser-pool-examples-'));
  symlinkSync(`${HERE}node_modules`, join(folder, 'node_modules'));
});
after(async () => {
  await pool?.stop();
  if (folder) rmSync(folder, { recursive: true });
});

for (const [example, [command, picture]] of Object.entries(EXPECTED)) {
  test(`${example} prints the title and takes its picture`, async () => {
    copyFileSync(join(EXAMPLES, example), join(folder, example));
    const env = { ...process.env, CDP_URL: `${pool.url}?priority=1` };
    const { stdout } = await promisify(execFile)(command, [example], { cwd: folder, env });
    assert.equal(stdout.trim(), 'Hello from the pool');
    assert.ok(existsSync(join(folder, picture)));
  });
}
