// Files that clients name in shared leases: those that they may not are told of at once, by every client.

import assert from 'node:assert/strict';
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';
import { chromium } from 'playwright-core';
import puppeteer from 'puppeteer-core';
import { serve } from '../site/server.mjs';
import { startPool } from './lib/pool.mjs';

const HINT = '`[chrome] directories`';

for (const engine of ['shell', 'chromium']) {
  describe(`files in shared leases of ${engine}`, () => {
    let pool;
    let site;
    let folder;
    let allowed;

    before(async () => {
      site = await serve();
      folder = mkdtempSync(join(tmpdir(), 'browser-pool-files-'));
      allowed = mkdtempSync(join(tmpdir(), 'browser-pool-allowed-'));
      writeFileSync(join(folder, 'mine.txt'), 'mine');
      writeFileSync(join(allowed, 'mine.txt'), 'mine');
      // Another TMPDIR than that of the clients: what Playwright makes there is nothing to the pool.
      const env = { TMPDIR: mkdtempSync(join(folder, 'tmp-')) };
      const chrome = { engine, directories: [allowed] };
      pool = await startPool({ pool: { lease: 'shared', min_size: 1, max_size: 2 }, chrome }, { env });
    });
    after(async () => {
      await pool?.stop();
      await site?.close();
      for (const directory of [folder, allowed]) rmSync(directory, { recursive: true, force: true });
    });

    const at = (path) => new URL(path, site.url).href;

    /** The latest event of this kind, which must tell why; the log has the same. */
    async function told(event, path) {
      const { events } = await pool.get('/api/state');
      const { reason } = events.find((entry) => entry.event === event && entry.reason.includes(path)) ?? assert.fail(JSON.stringify(events.slice(0, 5)));
      assert.ok(reason.includes(HINT), reason);
      assert.ok(pool.log().split('\n').some((line) => line.includes(path) && line.includes(HINT)), pool.log().slice(-2000));
    }

    /** The message of an error that must come within a second. */
    async function atOnce(call) {
      const begun = performance.now();
      const { message } = await call.then(() => assert.fail('it was not refused'), (error) => error);
      assert.ok(performance.now() - begun < 1_000, `${message} after ${performance.now() - begun} ms`);
      return message;
    }

    for (const [name, options] of [
      ['another TMPDIR', () => ({})],
      ['artifactsDir', () => ({ artifactsDir: mkdtempSync(join(folder, 'artifacts-')) })],
    ]) {
      test(`Playwright with ${name} learns that its download was canceled`, async () => {
        const browser = await chromium.connectOverCDP(pool.url, options());
        for (const context of [browser.contexts()[0], await browser.newContext()]) {
          const page = context.pages()[0] ?? (await context.newPage());
          await page.goto(at('/files.html'));
          const [download] = await Promise.all([page.waitForEvent('download'), page.click('#download')]);
          assert.equal(download.suggestedFilename(), 'report.txt');
          assert.equal(await download.failure(), 'canceled');
          const message = await atOnce(download.saveAs(join(folder, 'saved.txt')));
          assert.ok(message.includes('canceled') && !message.includes('ENOENT'), message);
        }
        await browser.close();
        assert.ok(!existsSync(join(folder, 'saved.txt')));
        await told('download_canceled', name === 'artifactsDir' ? join(folder, 'artifacts-') : 'playwright-artifacts-');
      });
    }

    test('Playwright saves its download where the directory is allowed', async () => {
      const browser = await chromium.connectOverCDP(pool.url, { artifactsDir: allowed });
      const [page] = browser.contexts()[0].pages();
      await page.goto(at('/files.html'));
      const [download] = await Promise.all([page.waitForEvent('download'), page.click('#download')]);
      await download.saveAs(join(folder, 'saved.txt'));
      assert.equal(readFileSync(join(folder, 'saved.txt')).length, 1300);
      await browser.close();
    });

    test('Puppeteer learns that its download was canceled, or has its file', async () => {
      const browser = await puppeteer.connect({ browserWSEndpoint: pool.url });
      const [page] = await browser.pages();
      const client = await browser.target().createCDPSession();
      await page.goto(at('/files.html'));
      const elsewhere = mkdtempSync(join(folder, 'puppeteer-'));
      for (const [downloadPath, state, files] of [[elsewhere, 'canceled', []], [allowed, 'completed', ['report.txt']]]) {
        await client.send('Browser.setDownloadBehavior', { behavior: 'allow', downloadPath, eventsEnabled: true });
        const ended = new Promise((resolve) => {
          client.on('Browser.downloadProgress', (progress) => progress.state !== 'inProgress' && resolve(progress.state));
        });
        await page.click('#download');
        assert.equal(await ended, state);
        client.removeAllListeners('Browser.downloadProgress');
        assert.deepEqual(readdirSync(downloadPath).filter((name) => name === 'report.txt'), files);
      }
      await told('download_canceled', elsewhere);
      await browser.close();
    });

    test('Puppeteer and an ElementHandle of Playwright refuse a path at once, and say what to do', async () => {
      const mine = join(folder, 'mine.txt');
      const browser = await puppeteer.connect({ browserWSEndpoint: pool.url });
      const [page] = await browser.pages();
      await page.goto(at('/files.html'));
      const input = await page.$('#file');
      const message = await atOnce(input.uploadFile(mine));
      assert.ok(message.includes(HINT) && message.includes('buffer'), message);
      await input.uploadFile(join(allowed, 'mine.txt'));
      assert.equal(await page.evaluate(() => document.getElementById('file').files[0].text()), 'mine');
      await browser.close();

      // Only so does Playwright name files rather than send them.
      const other = await chromium.connectOverCDP(pool.url, { isLocal: true });
      const [form] = other.contexts()[0].pages();
      await form.goto(at('/files.html'));
      const handle = await form.$('#file');
      const refused = await atOnce(handle.setInputFiles(mine));
      assert.ok(refused.includes(HINT) && refused.includes('buffer'), refused);
      // A locator retries whatever fails: the log and the events tell why.
      const late = await form.locator('#file').setInputFiles(mine, { timeout: 800 }).then(() => 'done', (error) => error.name);
      assert.equal(late, 'TimeoutError');
      await told('upload_refused', mine);
      await form.locator('#file').setInputFiles({ name: 'sent.txt', mimeType: 'text/plain', buffer: Buffer.from('sent') });
      assert.equal(await form.evaluate(() => document.getElementById('file').files[0].text()), 'sent');
      await other.close();

      const remote = await chromium.connectOverCDP(pool.url);
      const [sent] = remote.contexts()[0].pages();
      await sent.goto(at('/files.html'));
      await sent.locator('#file').setInputFiles(mine);
      assert.equal(await sent.evaluate(() => document.getElementById('file').files[0].text()), 'mine');
      await remote.close();
    });
  });
}
