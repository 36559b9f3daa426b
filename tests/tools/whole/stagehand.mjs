// Stagehand without a model: its session, its context and its page.

import { Stagehand } from '@browserbasehq/stagehand';
import { FILES, FORM, MARK, NAME, downloaded, folder, report, ws } from '../lib/job.mjs';

const stagehand = new Stagehand({
  env: 'LOCAL',
  localBrowserLaunchOptions: { cdpUrl: ws, downloadsPath: folder, acceptDownloads: true },
  disablePino: true,
  verbose: 0,
});
const begun = performance.now();
await stagehand.init();
const waited = performance.now() - begun;
const page = stagehand.context.pages()[0];
await page.goto(FORM);
const marks = await page.evaluate(MARK);
await page.locator('#name').fill(NAME);
await page.locator('#send').click();
const sent = await page.locator('#sent').textContent();
const title = await page.title();
const picture = await page.screenshot();
await page.goto(FILES);
await page.locator('#download').click();
const file = await downloaded(folder, 'report.txt');
await stagehand.close();
report({ title, sent, marks, picture, file, waited });
