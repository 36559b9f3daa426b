// Drives everything that Playwright can ask of a browser, one JSON line a step.
//
//   node tests/clients/playwright.mjs CDP_URL SITE_URL [--only step,step] [--dir DIR] [--timeout MS]
//
// Through the pool and on a Chromium of its own the results are the same, but for the step `tracing`,
// which a shared lease refuses.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';
import { Steps, expect, parameters, stable } from './lib/steps.mjs';
import { contexts } from './playwright/contexts.mjs';
import { emulation } from './playwright/emulation.mjs';
import { files } from './playwright/files.mjs';
import { network } from './playwright/network.mjs';
import { pages } from './playwright/pages.mjs';
import { protocol } from './playwright/protocol.mjs';
import { targets } from './playwright/targets.mjs';

const options = parameters();
const { cdp, site } = options;
const steps = new Steps(options);
const dir = options.dir ?? mkdtempSync(join(tmpdir(), 'browser-pool-files-'));
if (!options.dir) process.on('exit', () => rmSync(dir, { recursive: true, force: true }));
let browser;

await steps.run('connect', async () => {
  browser = await chromium.connectOverCDP(cdp);
  return { contexts: browser.contexts().length, major: browser.version().split('.')[0] };
});
if (!browser) steps.finish();

const table = { ...contexts, ...pages, ...targets, ...files, ...network, ...emulation, ...protocol };
for (const [name, step] of Object.entries(table)) {
  if (!steps.wants(name)) continue;
  await steps.run(name, async () => {
    const own = [];
    const newContext = async (settings) => {
      const context = await browser.newContext(settings);
      own.push(context);
      return context;
    };
    const newPage = async (settings) => (await newContext(settings)).newPage();
    try {
      return stable((await step({ browser, newContext, newPage, site, dir })) ?? null, site);
    } finally {
      await Promise.all(own.map((context) => context.close()));
    }
  });
}

await steps.run('close', async () => {
  const gone = new Promise((resolve) => browser.on('disconnected', resolve));
  await browser.close();
  await gone;
  expect(!browser.isConnected(), 'still connected');
});
steps.finish();
