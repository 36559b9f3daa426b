// Crawlee's browser-pool: one Chromium, an incognito page (a context of its own) for every URL.
//
// Fingerprints are off and the browser is not retired in the middle: both would only slow it down.
import { BrowserPool, PlaywrightPlugin, PuppeteerPlugin } from '@crawlee/browser-pool';
import { finish, parameters, visit } from './lib.mjs';

const { urls, out, concurrency, launch, library } = parameters({ library: { type: 'string', default: 'puppeteer' } });
const settings = { launchOptions: launch, useIncognitoPages: true };
const plugin =
  library === 'playwright'
    ? new PlaywrightPlugin((await import('playwright-core')).chromium, settings)
    : new PuppeteerPlugin((await import('puppeteer')).default, settings);

const begun = performance.now();
const results = [];
const pool = new BrowserPool({
  browserPlugins: [plugin],
  useFingerprints: false,
  maxOpenPagesPerBrowser: concurrency,
  retireBrowserAfterPageCount: Infinity,
});

const queue = urls.values();
async function worker() {
  for (const url of queue) {
    const page = await pool.newPage();
    try {
      results.push(await visit(page, url));
    } catch (error) {
      results.push({ url, error: error.message });
    } finally {
      await page.close();
    }
  }
}
await Promise.all(Array.from({ length: concurrency }, worker));
await pool.destroy();

finish(out, results, begun);
