// Opens the dashboard of a node, drains it there and lets it serve again; the judge is tests/e2e/dashboard.rs.
//
//   node tests/clients/dashboard-nodes.mjs URL --node NAME
//
// One JSON line a step:
//   {"step":"alone","about":text,"nodes":[{label: text}]}     before; the same "drained" and "back" after each change
//   {"step":"page","violations":n,"errors":[…]}

import { parseArgs } from 'node:util';
import { chromium } from 'playwright-core';
import { executable } from './lib/chromium.mjs';

const { values: options, positionals: [url] } = parseArgs({
  allowPositionals: true, options: { node: { type: 'string' } },
});
const tell = (step, facts) => console.log(JSON.stringify({ step, ...facts }));

const viewer = await chromium.launch({
  executablePath: executable('shell') ?? executable('chromium'), chromiumSandbox: process.getuid() !== 0,
});
const page = await viewer.newPage();
page.setDefaultTimeout(20_000);
const errors = [];
let violations = 0;
page.on('pageerror', (error) => errors.push(String(error)));
await page.exposeFunction('violated', () => { violations += 1; });
await page.addInitScript(() => document.addEventListener('securitypolicyviolation', () => window.violated()));

const row = page.locator(`#nodes tr[data-node="${options.node}"]`);

async function show(step) {
  const nodes = await page.locator('#nodes tbody tr:not(.empty)').evaluateAll((rows) => rows.map((found) => (
    Object.fromEntries([...found.cells].map((cell) => [cell.dataset.label, cell.textContent]))
  )));
  tell(step, { about: await page.locator('#nodes-about').textContent(), nodes });
}

async function change(action, phase) {
  await row.getByRole('button', { name: `${action} ${options.node}`, exact: true }).click();
  await page.locator('#confirm-action').click();
  await row.getByText(phase).waitFor();
}

try {
  await page.goto(url);
  await row.getByText('running').waitFor();
  await show('alone');
  await change('Drain', 'draining');
  await show('drained');
  await change('Undrain', 'running');
  await show('back');
  tell('page', { violations, errors });
} finally {
  await viewer.close();
}
