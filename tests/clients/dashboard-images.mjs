// The pictures of the dashboard in docs/images: a pool under load, in light, in dark and on a phone.
//
//   node tests/clients/dashboard-images.mjs [--out docs/images] [--seconds 75] [--files]
//
// With --files the page's files come from the source tree rather than from the binary, so that a change of
// them is seen without a build.

import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { chromium } from 'playwright-core';
import { executable } from './lib/chromium.mjs';
import { startPool } from './lib/pool.mjs';
import { traffic } from './lib/traffic.mjs';
import { serve } from '../site/server.mjs';

const { values } = parseArgs({
  options: {
    out: { type: 'string', default: 'docs/images' },
    seconds: { type: 'string', default: '75' },
    files: { type: 'boolean', default: false },
  },
});
const SOURCE = new URL('../../pool-cli/src/gateway/dashboard/', import.meta.url);
const VIEWS = {
  light: { colorScheme: 'light', viewport: { width: 1440, height: 950 }, deviceScaleFactor: 1.4 },
  dark: { colorScheme: 'dark', viewport: { width: 1440, height: 950 }, deviceScaleFactor: 1.4 },
  phone: { colorScheme: 'light', viewport: { width: 390, height: 844 }, deviceScaleFactor: 2, hasTouch: true, isMobile: true },
};

mkdirSync(values.out, { recursive: true });
const site = await serve();
const pool = await startPool({
  pool: { name: 'production', min_size: 3, max_size: 6, health_check_interval: '5s' },
  'profiles.work': { max_size: 2 },
});
// A wave, so that there is something to see: now a few, now more than there are browsers.
const clients = traffic(pool, site, (second) => Math.round(5 + 4 * Math.sin(second / 7)));
const viewer = await chromium.launch({
  executablePath: executable('shell') ?? executable('chromium'), chromiumSandbox: process.getuid() !== 0,
});
try {
  const pages = {};
  for (const [name, options] of Object.entries(VIEWS)) {
    const page = await viewer.newPage(options);
    if (values.files) await page.route(isFile, (route) => route.fulfill(file(new URL(route.request().url()))));
    page.on('pageerror', (error) => console.error(name, error));
    page.on('console', (message) => console.error(name, message.text()));
    await page.goto(pool.url.replace('ws:', 'http:'));
    await page.getByRole('radio', { name: '1 min' }).check();
    pages[name] = page;
  }
  await delay((Number(values.seconds) * 1000) / 2);
  const { browsers } = await pool.get('/api/state');
  process.kill(browsers.find(({ state }) => state === 'leased').pid, 'SIGKILL');
  await delay((Number(values.seconds) * 1000) / 2);
  const busy = async () => {
    const { load, browsers: now } = await pool.get('/api/state');
    return load.waiting >= 2 && load.leased >= 4 && now.some(({ profile }) => profile !== null);
  };
  while (!(await busy())) await delay(200);
  // All have shown it by then.
  await delay(1_100);
  for (const [name, page] of Object.entries(pages)) {
    await page.screenshot({ path: join(values.out, `dashboard-${name}.png`) });
  }
} finally {
  await viewer.close();
  await clients.stop();
  await pool.stop();
  await site.close();
}

function isFile({ pathname }) {
  return pathname === '/' || pathname.startsWith('/dashboard/');
}

function file({ pathname }) {
  const name = pathname === '/' ? 'index.html' : pathname.replace('/dashboard/', '');
  const types = { css: 'text/css', html: 'text/html', js: 'text/javascript', svg: 'image/svg+xml' };
  return { body: readFileSync(new URL(name, SOURCE)), contentType: types[name.split('.').pop()] };
}
