import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { pngSize } from '../lib/steps.mjs';

/** Files in and out: downloads, uploads, screenshots, PDF. */
export const files = {
  async download({ newContext, site, dir }) {
    const downloadPath = join(dir, 'downloads');
    mkdirSync(downloadPath, { recursive: true });
    const context = await newContext({ downloadBehavior: { policy: 'allow', downloadPath } });
    const page = await context.newPage();
    await page.goto(`${site}/files.html`);
    const session = await page.createCDPSession();
    await session.send('Browser.setDownloadBehavior', {
      behavior: 'allow', browserContextId: context.id, downloadPath, eventsEnabled: true,
    });
    const done = new Promise((resolve) => {
      session.on('Browser.downloadProgress', ({ state }) => { if (state !== 'inProgress') resolve(state); });
    });
    await page.click('#download');
    const state = await done;
    return { state, size: readFileSync(join(downloadPath, 'report.txt')).length };
  },

  async 'upload-with-chooser'({ newPage, site, dir }) {
    const path = join(dir, 'upload.txt');
    writeFileSync(path, 'from the disk\n');
    const page = await newPage();
    await page.goto(`${site}/files.html`);
    const [chooser] = await Promise.all([page.waitForFileChooser(), page.click('#file')]);
    await chooser.accept([path]);
    await Promise.all([page.waitForNavigation(), page.click('#send')]);
    return JSON.parse(await page.$eval('body', (element) => element.textContent));
  },

  async 'upload-of-two-files'({ newPage, site, dir }) {
    const paths = ['one.txt', 'two.txt'].map((name) => join(dir, name));
    for (const path of paths) writeFileSync(path, 'two of them\n');
    const page = await newPage();
    await page.goto(`${site}/files.html`);
    await (await page.$('#file')).uploadFile(...paths);
    await Promise.all([page.waitForNavigation(), page.click('#send')]);
    return JSON.parse(await page.$eval('body', (element) => element.textContent)).files.map(({ name }) => name);
  },

  async screenshots({ newPage, site }) {
    const page = await newPage();
    await page.setViewport({ width: 800, height: 500 });
    await page.goto(`${site}/tall.html`);
    return {
      viewport: pngSize(await page.screenshot()),
      full: pngSize(await page.screenshot({ fullPage: true })),
      clip: pngSize(await page.screenshot({ clip: { x: 0, y: 0, width: 100, height: 50 } })),
      element: pngSize(await (await page.$('#box')).screenshot()),
      jpeg: Buffer.from(await page.screenshot({ type: 'jpeg', quality: 50 })).subarray(0, 3).toString('hex'),
    };
  },

  async pdf({ newPage, site }) {
    const page = await newPage();
    await page.goto(`${site}/tall.html`);
    const bytes = Buffer.from(await page.pdf({ format: 'A4' }));
    return { header: bytes.subarray(0, 5).toString(), pages: bytes.toString('latin1').match(/\/Type\s*\/Page\b/g).length };
  },
};
