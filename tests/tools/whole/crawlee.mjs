// Crawlee: its crawler takes each browser out of the pool; `--library` is what it drives it with.

import { Configuration, PlaywrightCrawler, PuppeteerCrawler } from 'crawlee';
import { chromium } from 'playwright';
import puppeteer from 'puppeteer';
import { FORM, MARK, NAME, report, ws } from '../lib/job.mjs';

const LIBRARIES = {
  playwright: {
    Crawler: PlaywrightCrawler,
    launcher: { name: () => 'chromium', launch: () => chromium.connectOverCDP(ws) },
    fill: (page) => page.fill('#name', NAME),
  },
  puppeteer: {
    Crawler: PuppeteerCrawler,
    launcher: { ...puppeteer, launch: () => puppeteer.connect({ browserWSEndpoint: ws }) },
    fill: (page) => page.type('#name', NAME),
  },
};

const { Crawler, launcher, fill } = LIBRARIES[process.argv[2]];
const did = {};
const crawler = new Crawler({
  launchContext: { launcher, useIncognitoPages: true },
  maxRequestRetries: 0,
  async requestHandler({ page }) {
    did.marks = await page.evaluate(MARK);
    await fill(page);
    await page.click('#send');
    did.sent = await page.evaluate('document.getElementById("sent").textContent');
    did.picture = await page.screenshot();
    did.title = await page.title();
  },
}, new Configuration({ persistStorage: false, purgeOnStart: false }));
await crawler.run([FORM]);
report(did);
