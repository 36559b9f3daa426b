// puppeteer-cluster: each worker's browser is a lease.

import { Cluster } from 'puppeteer-cluster';
import puppeteer from 'puppeteer-core';
import { FORM, MARK, NAME, report, ws } from '../lib/job.mjs';

const cluster = await Cluster.launch({
  concurrency: Cluster.CONCURRENCY_BROWSER,
  maxConcurrency: 1,
  puppeteer: { launch: () => puppeteer.connect({ browserWSEndpoint: ws }) },
});
const did = await cluster.execute(FORM, async ({ page, data: url }) => {
  await page.goto(url);
  const marks = await page.evaluate(MARK);
  await page.type('#name', NAME);
  await page.click('#send');
  const sent = await page.$eval('#sent', (element) => element.textContent);
  return { title: await page.title(), sent, marks, picture: await page.screenshot() };
});
await cluster.idle();
await cluster.close();
report(did);
