import { createHash } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pngSize } from '../lib/steps.mjs';

const sha = (path) => createHash('sha256').update(readFileSync(path)).digest('hex').slice(0, 16);

/** Files in and out: downloads, uploads, screenshots, PDF. */
export const files = {
  async download({ newPage, site, dir }) {
    const page = await newPage();
    await page.goto(`${site}/files.html`);
    const [download] = await Promise.all([page.waitForEvent('download'), page.click('#download')]);
    const path = join(dir, 'downloaded.txt');
    await download.saveAs(path);
    return { name: download.suggestedFilename(), url: download.url(), sha: sha(path), failure: await download.failure() };
  },

  async 'download-made-by-the-page'({ newPage, site, dir }) {
    const page = await newPage();
    await page.goto(`${site}/files.html`);
    const [download] = await Promise.all([page.waitForEvent('download'), page.click('#generated')]);
    const path = join(dir, 'generated.txt');
    await download.saveAs(path);
    return { name: download.suggestedFilename(), text: readFileSync(path, 'utf8') };
  },

  async 'download-cancelled'({ newPage, site }) {
    const page = await newPage();
    await page.goto(`${site}/files.html`);
    const [download] = await Promise.all([page.waitForEvent('download'), page.click('#slow')]);
    await download.cancel();
    return { name: download.suggestedFilename(), failure: await download.failure() };
  },

  async 'upload-from-memory'({ newPage, site }) {
    const page = await newPage();
    await page.goto(`${site}/files.html`);
    await page.setInputFiles('#file', [
      { name: 'one.txt', mimeType: 'text/plain', buffer: Buffer.from('one') },
      { name: 'two.txt', mimeType: 'text/plain', buffer: Buffer.from('two') },
    ]);
    await page.click('#send');
    await page.waitForURL('**/upload');
    return JSON.parse(await page.locator('body').textContent());
  },

  async 'upload-from-disk'({ newPage, site, dir }) {
    const path = join(dir, 'upload.txt');
    writeFileSync(path, 'from the disk\n');
    const page = await newPage();
    await page.goto(`${site}/files.html`);
    const [chooser] = await Promise.all([page.waitForEvent('filechooser'), page.click('#file')]);
    await chooser.setFiles(path);
    await page.click('#send');
    await page.waitForURL('**/upload');
    return { multiple: chooser.isMultiple(), ...JSON.parse(await page.locator('body').textContent()) };
  },

  async screenshots({ newPage, site }) {
    const page = await newPage({ viewport: { width: 800, height: 500 } });
    await page.goto(`${site}/tall.html`);
    const jpeg = await page.screenshot({ type: 'jpeg', quality: 50 });
    return {
      viewport: pngSize(await page.screenshot()),
      full: pngSize(await page.screenshot({ fullPage: true })),
      clip: pngSize(await page.screenshot({ clip: { x: 0, y: 0, width: 100, height: 50 } })),
      element: pngSize(await page.locator('#box').screenshot()),
      jpeg: jpeg.subarray(0, 3).toString('hex'),
    };
  },

  async pdf({ newPage, site }) {
    const page = await newPage();
    await page.goto(`${site}/tall.html`);
    const bytes = await page.pdf({ format: 'A4', printBackground: true });
    return { header: bytes.subarray(0, 5).toString(), pages: bytes.toString('latin1').match(/\/Type\s*\/Page\b/g).length };
  },
};
