// Drives everything that Puppeteer can ask of a browser, one JSON line a step.
//
//   node tests/clients/puppeteer.mjs CDP_URL SITE_URL [--library puppeteer-core-24] [--only step,step] [--dir DIR] [--timeout MS]
//
// Through the pool and on a Chromium of its own the results are the same, but for the step `tracing`,
// which a shared lease refuses.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Steps, expect, parameters, stable } from './lib/steps.mjs';
import { contexts } from './puppeteer/contexts.mjs';
import { emulation } from './puppeteer/emulation.mjs';
import { files } from './puppeteer/files.mjs';
import { network } from './puppeteer/network.mjs';
import { pages } from './puppeteer/pages.mjs';
import { protocol } from './puppeteer/protocol.mjs';
import { targets } from './puppeteer/targets.mjs';

const options = parameters({ library: { type: 'string', default: 'puppeteer-core' } });
const { cdp, site } = options;
const { default: puppeteer } = await import(options.library);
const steps = new Steps(options);
const dir = options.dir ?? mkdtempSync(join(tmpdir(), 'browser-pool-files-'));
if (!options.dir) process.on('exit', () => rmSync(dir, { recursive: true, force: true }));
let browser;

await steps.run('connect', async () => {
  browser = await puppeteer.connect({ browserWSEndpoint: cdp });
  expect(browser.connected, 'not connected');
  return { contexts: browser.browserContexts().length };
});
if (!browser) steps.finish();

const table = { ...contexts, ...pages, ...targets, ...files, ...network, ...emulation, ...protocol };
for (const [name, step] of Object.entries(table)) {
  if (!steps.wants(name)) continue;
  await steps.run(name, async () => {
    const own = [];
    const newContext = async (settings) => {
      const context = await browser.createBrowserContext(settings);
      own.push(context);
      return context;
    };
    const newPage = async () => (await newContext()).newPage();
    try {
      return stable((await step({ browser, newContext, newPage, site, dir })) ?? null, site);
    } finally {
      await Promise.all(own.map((context) => context.close()));
    }
  });
}

await steps.run('close', async () => {
  const gone = new Promise((resolve) => browser.once('disconnected', resolve));
  await browser.close();
  await gone;
  expect(!browser.connected, 'still connected');
});
steps.finish();
