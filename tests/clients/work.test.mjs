// Pictures, PDFs and HTML of `/screenshot`, `/pdf` and `/content` are those that Puppeteer makes of the same page in
// a Chromium of its own.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import puppeteer from 'puppeteer-core';
import { executable } from './lib/chromium.mjs';
import { startPool } from './lib/pool.mjs';

const PAGE = `<!doctype html><!-- kept --><html><head><title>A page</title><style>
  body { font: 16px/1.4 sans-serif; background: linear-gradient(#fed, #def); }
  h2 { break-before: page; color: rebeccapurple; }
  #box { margin: 30px; width: 217px; height: 93px; background: teal; color: white; }
  @media print { body { background: #eee; } }
</style></head><body><h1>Heading</h1><div id="box">boxed</div>
${[1, 2, 3].map((n) => `<h2>Part ${n}</h2><p>${`Words of part ${n}. `.repeat(60)}</p>`).join('')}
</body></html>`;

const VIEWPORT = { width: 640, height: 480 };
const PICTURES = {
  'what is in view': {},
  'the whole page': { fullPage: true },
  'a clip of it': { clip: { x: 10.4, y: 600.6, width: 300, height: 200 } },
  'a JPEG': { type: 'jpeg', quality: 60, fullPage: true },
  'a WebP': { type: 'webp', quality: 80 },
  'a page without a background': { omitBackground: true },
};
const PDFS = {
  'the defaults': {},
  'A4 with margins and a background': { format: 'A4', margin: { top: '2cm', left: 40 }, printBackground: true },
  'landscape at half its size': { landscape: true, scale: 0.5 },
  'some of its pages': { pageRanges: '2-3' },
  'paper by its sides': { width: '6in', height: '900px' },
  'a footer': { displayHeaderFooter: true, footerTemplate: '<p style="font-size:9px">foot</p>', margin: { bottom: '1in' } },
};

for (const engine of ['shell', 'chromium']) describe(engine, () => {
  let pool;
  let browser;
  let page;
  let folder;

  before(async () => {
    pool = await startPool({ pool: { min_size: 1, max_size: 2, lease: 'shared' }, chrome: { engine } });
    browser = await puppeteer.launch({
      executablePath: executable(engine),
      headless: engine === 'shell' ? 'shell' : true,
      args: process.getuid() === 0 ? ['--no-sandbox'] : [],
    });
    page = await browser.newPage();
    await page.setViewport(VIEWPORT);
    await page.setContent(PAGE);
    folder = mkdtempSync(join(tmpdir(), 'browser-pool-work-'));
  });
  after(async () => {
    await browser?.close();
    await pool?.stop();
    if (folder) rmSync(folder, { recursive: true });
  });

  const post = async (route, more) => {
    const answer = await fetch(`${pool.url.replace('ws:', 'http:')}${route}`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ html: PAGE, viewport: VIEWPORT, ...more }),
    });
    const bytes = Buffer.from(await answer.arrayBuffer());
    assert.equal(answer.status, 200, bytes.toString());
    return bytes;
  };

  test(`the HTML is Puppeteer's`, async () => {
    assert.equal((await post('content', {})).toString(), await page.content());
  });

  for (const [name, options] of Object.entries(PICTURES)) {
    test(`${name} has the pixels of Puppeteer's`, async () => {
      const [ours, theirs] = [await post('screenshot', { options }), Buffer.from(await page.screenshot(options))];
      await assertSamePixels(page, ours, theirs, options.type ?? 'png');
    });
  }

  test(`an element has the pixels of Puppeteer's`, async () => {
    const theirs = await (await page.$('#box')).screenshot();
    await assertSamePixels(page, await post('screenshot', { selector: '#box' }), Buffer.from(theirs), 'png');
  });

  for (const [name, options] of Object.entries(PDFS)) {
    test(`a PDF with ${name} has the text and pages of Puppeteer's`, async () => {
      const [ours, theirs] = [await post('pdf', { options }), await page.pdf(options)];
      assert.deepEqual(described(folder, ours), described(folder, theirs));
    });
  }
});

/** Compares pictures as a page of the browser decodes them. */
async function assertSamePixels(page, ours, theirs, type) {
  if (ours.equals(theirs)) return;
  const urls = [ours, theirs].map((bytes) => `data:image/${type};base64,${bytes.toString('base64')}`);
  const blank = await page.browser().newPage();
  const different = await blank.evaluate(async ([a, b]) => {
    const pixels = async (url) => {
      const picture = new Image();
      picture.src = url;
      await picture.decode();
      const { width, height } = picture;
      const canvas = new OffscreenCanvas(width, height).getContext('2d');
      canvas.drawImage(picture, 0, 0);
      return { width, height, data: canvas.getImageData(0, 0, width, height).data };
    };
    const [one, other] = [await pixels(a), await pixels(b)];
    if (one.width !== other.width || one.height !== other.height) return `${one.width}x${one.height}, ${other.width}x${other.height}`;
    return one.data.filter((value, i) => value !== other.data[i]).length;
  }, urls);
  await blank.close();
  assert.equal(different, 0, `they differ: ${different}`);
}

/** Text, number and size of the pages of a PDF. */
function described(folder, pdf) {
  const path = join(folder, 'a.pdf');
  writeFileSync(path, pdf);
  const info = execFileSync('pdfinfo', [path]).toString();
  const text = execFileSync('pdftotext', ['-layout', path, '-']).toString();
  return { text, info: info.split('\n').filter((line) => /^(Pages|Page size|Tagged)/.test(line)) };
}
