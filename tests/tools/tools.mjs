// The tools; docs/clients.md says how each is addressed.
//
// Each is `{ name, program, version, proves }`: `program` is the command of one job, `proves` what every job must have
// done. `quick` ones need little to be installed; an `agent` comes back to its browser by `?session=`; `refused` are the
// parts that shared leases refuse on purpose, each of which must come back as one error that says so.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';

const HERE = new URL('.', import.meta.url).pathname;
const TARGET = new URL('../../target/', import.meta.url).pathname;

const PACKAGES = Object.fromEntries(['quick', 'whole'].map((folder) => {
  const { dependencies } = JSON.parse(readFileSync(join(HERE, folder, 'package.json'), 'utf8'));
  return [folder, dependencies];
}));
const REQUIREMENTS = Object.fromEntries(['agents', 'drivers', 'pyppeteer'].map((name) => {
  const lines = readFileSync(join(HERE, 'python', `${name}.txt`), 'utf8').split('\n');
  return [name, Object.fromEntries(lines.map((line) => line.split('==')))];
}));

/** Lighthouse and Puppeteer ask for a newer Node than the tests otherwise need: their own packages bring one. */
function newNode() {
  const [major, minor] = process.versions.node.split('.').map(Number);
  if (major > 22 || (major === 22 && minor >= 19)) return process.execPath;
  return join(HERE, 'whole/node_modules', `node-${process.platform}-${process.arch}`, 'bin/node');
}

const quick = (name, script, more) => ({
  name, quick: true, version: PACKAGES.quick[name], program: [process.execPath, join(HERE, 'quick', script)], ...more,
});
const whole = (name, script, { parameters = [], ...more }) => ({
  name,
  version: PACKAGES.whole[name.split(' ')[0]],
  program: [newNode(), join(HERE, 'whole', script), ...parameters],
  ...more,
});
const python = (name, environment, script, more) => ({
  name,
  version: REQUIREMENTS[environment][name],
  program: [join(HERE, 'python/.venv', environment, 'bin/python'), join(HERE, 'python', script)],
  ...more,
});

export const TOOLS = [
  quick('@playwright/mcp', 'playwright-mcp.mjs', {
    agent: true,
    proves: ['title', 'sent', 'marks', 'picture', 'file'],
  }),
  quick('@playwright/test', 'playwright-test.mjs', {
    proves: ['title', 'sent', 'marks', 'picture', 'file'],
  }),
  quick('puppeteer-cluster', 'puppeteer-cluster.mjs', {
    proves: ['title', 'sent', 'marks', 'picture'],
  }),
  quick('chrome-remote-interface', 'chrome-remote-interface.mjs', {
    proves: ['title', 'sent', 'marks', 'picture'],
  }),
  python('pyppeteer', 'pyppeteer', 'pyppeteer_job.py', {
    quick: true,
    proves: ['title', 'sent', 'marks', 'picture'],
  }),
  python('pydoll-python', 'drivers', 'pydoll_job.py', {
    quick: true,
    proves: ['title', 'sent', 'marks', 'picture', 'file'],
  }),
  python('selenium', 'drivers', 'selenium_job.py', {
    quick: true,
    proves: ['title', 'sent', 'marks', 'picture'],
  }),
  python('zendriver', 'drivers', 'zendriver_job.py', {
    quick: true,
    proves: ['title', 'sent', 'marks', 'picture', 'file'],
  }),
  whole('chrome-devtools-mcp', 'chrome-devtools-mcp.mjs', {
    agent: true,
    proves: ['title', 'sent', 'marks', 'picture', 'trace', 'audit'],
    refused: ['trace'],
  }),
  python('browser-use', 'agents', 'browser_use_job.py', {
    agent: true,
    proves: ['title', 'sent', 'marks', 'picture', 'file'],
  }),
  python('crawl4ai', 'agents', 'crawl4ai_job.py', {
    agent: true,
    proves: ['title', 'sent', 'marks', 'picture', 'file'],
  }),
  python('scrapy-playwright', 'agents', 'scrapy_playwright_job.py', {
    proves: ['title', 'sent', 'marks', 'picture'],
  }),
  whole('@browserbasehq/stagehand', 'stagehand.mjs', {
    agent: true,
    proves: ['title', 'sent', 'marks', 'picture', 'file'],
  }),
  whole('lighthouse', 'lighthouse.mjs', {
    proves: ['audit', 'trace', 'picture'],
    refused: ['trace', 'picture'],
  }),
  whole('crawlee (Playwright)', 'crawlee.mjs', {
    parameters: ['playwright'],
    proves: ['title', 'sent', 'marks', 'picture'],
  }),
  whole('crawlee (Puppeteer)', 'crawlee.mjs', {
    parameters: ['puppeteer'],
    proves: ['title', 'sent', 'marks', 'picture'],
  }),
  {
    name: 'headless_chrome',
    version: '1.0.22',
    program: [join(TARGET, 'headless-chrome/debug/headless-chrome')],
    proves: ['title', 'sent', 'marks', 'picture'],
  },
];
