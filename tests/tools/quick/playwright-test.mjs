// @playwright/test: its runner, with tests whose browser is a lease by a fixture.

import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

const cli = join(dirname(createRequire(import.meta.url).resolve('@playwright/test/package.json')), 'cli.js');
const { status } = spawnSync(process.execPath, [cli, 'test', '--config', new URL('playwright-test/config.mjs', import.meta.url).pathname], {
  stdio: 'inherit',
});
process.exit(status ?? 1);
