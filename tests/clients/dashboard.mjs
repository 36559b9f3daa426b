// Opens the dashboard as a person does and tells what it shows; the judge is tests/e2e/dashboard.rs.
//
//   node tests/clients/dashboard.mjs URL --token T --look LEASE --end LEASE
//
// It looks at the browser of one lease and ends the other lease. One JSON line a step:
//   {"step":"tables","browsers":[{label: text}],"waiters":[…]}         as they are shown at first
//   {"step":"plots","drawn":{plot: bool},"moved":{plot: bool},"before":{plot: text},"after":{plot: text}}
//   {"step":"live","title","url","elements","color":[r,g,b],"after_close":requests}
//   {"step":"action","notice"}
//   {"step":"lost","text"}                                             where its stream cannot be had
//   {"step":"page","origins":[…],"tokens_in_urls":n,"violations":[…],"errors":[…],"injected":bool}
//   {"step":"policy","violations":[…]}                                 of a picture from elsewhere

import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { chromium } from 'playwright-core';
import { executable } from './lib/chromium.mjs';

const { values: options, positionals: [url] } = parseArgs({
  allowPositionals: true,
  options: { token: { type: 'string' }, look: { type: 'string' }, end: { type: 'string' } },
});
const tell = (step, facts) => console.log(JSON.stringify({ step, ...facts }));

const viewer = await chromium.launch({
  executablePath: executable('shell') ?? executable('chromium'), chromiumSandbox: process.getuid() !== 0,
});
const page = await viewer.newPage();
page.setDefaultTimeout(20_000);
const urls = [];
const errors = [];
const violations = [];
page.on('request', (request) => urls.push(request.url()));
page.on('pageerror', (error) => errors.push(String(error)));
await page.exposeFunction('violated', (text) => violations.push(text));
await page.addInitScript(() => {
  document.addEventListener('securitypolicyviolation', (event) => window.violated(`${event.violatedDirective}: ${event.blockedURI}`));
});

try {
  await page.goto(url);
  // A wrong token first: the page says so and asks again.
  await page.getByRole('textbox', { name: 'Token' }).fill('wrong');
  await page.getByRole('button', { name: 'Continue' }).click();
  await page.getByText('is not valid here').waitFor();
  await page.getByRole('textbox', { name: 'Token' }).fill(options.token);
  await page.getByRole('button', { name: 'Continue' }).click();
  await page.locator('#connection[data-state=live]').waitFor();
  await page.getByRole('radio', { name: '1 min' }).check();
  await tile('Waiting', '1');

  tell('tables', { browsers: await rows('#browsers'), waiters: await rows('#waiters') });
  await live();
  const before = await plotsOnce((shown) => shown['Waiting queue'].legend === 'waiting 1');
  await endLease();
  await tile('Waiting', '0');
  await tile('Active', '1');
  const after = await plotsOnce((shown) => Object.entries(before).every(([name, then]) => (
    shown[name].picture !== then.picture && shown[name].legend !== then.legend
  )));
  const each = (fact) => Object.fromEntries(Object.keys(before).map((name) => [name, fact(before[name], after[name])]));
  tell('plots', {
    drawn: each((_, now) => now.drawn > 20),
    moved: each((then, now) => then.picture !== now.picture),
    before: each((then) => then.legend),
    after: each((_, now) => now.legend),
  });
  await loseAndFind();
  tell('page', {
    origins: [...new Set(urls.map((requested) => new URL(requested).origin))],
    tokens_in_urls: urls.filter((requested) => requested.includes(options.token)).length,
    violations,
    errors,
    injected: await page.evaluate(() => 'pwned' in window || document.querySelector('[onerror]') !== null),
  });
  // That nothing was reported means something only where a breach is.
  await page.evaluate(() => { new Image().src = 'http://elsewhere.invalid/'; });
  while (violations.length === 0) await delay(50);
  tell('policy', { violations });
} finally {
  await viewer.close();
}

/** Waits until the tile of this label shows this value. */
async function tile(label, value) {
  const tiles = page.locator('.tile').filter({ has: page.locator('dt', { hasText: label }) });
  await tiles.locator('.tile-value').filter({ hasText: new RegExp(`^${value}$`) }).waitFor();
}

/** The rows of a table, each as its texts by their labels. */
function rows(table) {
  return page.locator(`${table} tbody tr:not(.empty)`).evaluateAll((found) => found.map((row) => (
    Object.fromEntries([...row.cells].map((cell) => [cell.dataset.label, cell.textContent]))
  )));
}

/** What each plot shows: its canvas, how many pixels have the colour of its line, and its legend. */
function plots() {
  return page.locator('[data-plot]').evaluateAll((figures) => Object.fromEntries(figures.map((figure) => {
    const canvas = figure.querySelector('canvas');
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    const wanted = getComputedStyle(figure.querySelector('.swatch-1')).borderTopColor.match(/\d+/g).map(Number);
    let drawn = 0;
    for (let at = 0; at < data.length; at += 4) {
      if (data[at + 3] > 200 && wanted.every((part, index) => Math.abs(data[at + index] - part) < 24)) drawn += 1;
    }
    return [figure.dataset.plot, { picture: canvas.toDataURL(), drawn, legend: figure.querySelector('.legend').textContent }];
  })));
}

/** What the plots show once it is as wanted, which takes a page a while; the judge sees what does not get so. */
async function plotsOnce(wanted) {
  const late = performance.now() + 20_000;
  for (;;) {
    const shown = await plots();
    if (wanted(shown) || performance.now() > late) return shown;
    await delay(250);
  }
}

/** The row of the browser that a lease has; the pool is asked, since the page does not show ids of leases. */
async function row(lease) {
  const answer = await fetch(new URL('sessions', url), { headers: { authorization: `Bearer ${options.token}` } });
  const { browserId } = (await answer.json()).find(({ id }) => id === lease);
  return page.locator(`#browsers tr[data-browser="${browserId}"]`);
}

async function live() {
  await (await row(options.look)).locator('td').first().click();
  const image = page.locator('#live-image');
  await image.waitFor();
  // One picture more: that it goes on is the point of it.
  const first = await image.getAttribute('src');
  await page.waitForFunction((src) => {
    const shown = document.getElementById('live-image');
    return shown.src !== src && shown.complete && shown.naturalWidth > 0;
  }, first);
  const color = await image.evaluate((shown) => {
    const canvas = document.createElement('canvas');
    canvas.width = shown.naturalWidth;
    canvas.height = shown.naturalHeight;
    const context = canvas.getContext('2d');
    context.drawImage(shown, 0, 0);
    return [...context.getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data].slice(0, 3);
  });
  const title = page.locator('#live-title');
  const facts = {
    title: await title.textContent(),
    url: await page.locator('#live-url').textContent(),
    elements: await title.evaluate((heading) => heading.childElementCount),
    color,
  };
  await page.keyboard.press('Escape');
  await page.locator('#live').waitFor({ state: 'hidden' });
  const asked = () => urls.filter((requested) => requested.endsWith('/screenshot')).length;
  const until = asked();
  await delay(2_500);
  tell('live', { ...facts, after_close: asked() - until });
}

/** A stream that cannot be had is told, and found again by itself; the token outlives the reload. */
async function loseAndFind() {
  const stream = '**/api/stream';
  await page.route(stream, (route) => route.abort());
  await page.reload();
  const lost = page.locator('#connection[data-state=lost]');
  await lost.waitFor();
  tell('lost', { text: await lost.textContent() });
  await page.unroute(stream);
  await page.locator('#connection[data-state=live]').waitFor();
}

async function endLease() {
  await (await row(options.end)).getByRole('button', { name: 'End lease' }).click();
  await page.locator('#confirm').getByRole('button', { name: 'End lease' }).click();
  tell('action', { notice: await page.locator('.notice').first().textContent() });
}
