// The example clients run as they stand, against a pool.

import assert from 'node:assert/strict';
import { execFile, spawnSync } from 'node:child_process';
import { copyFileSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
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

/** One-shot work by plain HTTP, in what of these languages is on this machine. */
const WORK = {
  'work.sh': ['sh'],
  'work_requests.py': [`${HERE}.venv/bin/python`],
  'work.php': ['php'],
  'work.go': ['go', 'run'],
};
/** With what the example says that it needs. */
const installed = (command) => {
  if (command === 'php') return spawnSync('php', ['-r', 'exit(extension_loaded("curl") ? 0 : 1);']).status === 0;
  return existsSync(command) || spawnSync('sh', ['-c', 'command -v "$0"', command]).status === 0;
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

for (const [example, [command, ...words]] of Object.entries(WORK)) {
  test(`${example} prints the title and stores a picture and a PDF`, { skip: !installed(command) && `${command} is not installed` }, async () => {
    copyFileSync(join(EXAMPLES, example), join(folder, example));
    const env = { ...process.env, POOL_URL: pool.url.replace('ws:', 'http:').replace(/\/$/, '') };
    const { stdout } = await promisify(execFile)(command, [...words, example], { cwd: folder, env });
    assert.equal(stdout.trim(), 'Hello from the pool');
    assert.equal(readFileSync(join(folder, 'work.png')).subarray(1, 4).toString(), 'PNG');
    assert.equal(readFileSync(join(folder, 'work.pdf')).subarray(0, 5).toString(), '%PDF-');
    rmSync(join(folder, 'work.png'));
    rmSync(join(folder, 'work.pdf'));
  });
}
