import { stat } from 'node:fs/promises';
import { FILES, FORM, MARK, NAME, report } from '../../lib/job.mjs';
import { expect, test } from './fixtures.mjs';

const did = {};

test('a form is sent', async ({ page }) => {
  await page.goto(FORM);
  await expect(page).toHaveTitle('A form');
  did.title = await page.title();
  did.marks = await page.evaluate(MARK);
  await page.getByLabel('Name').fill(NAME);
  await page.getByRole('button', { name: 'Send' }).click();
  did.sent = await page.locator('#sent').textContent();
  did.picture = await page.screenshot();
});

test('the next test sees nothing of it, and downloads a file', async ({ page }) => {
  await page.goto(FORM);
  did.marks += await page.evaluate(MARK);
  await page.goto(FILES);
  const [download] = await Promise.all([page.waitForEvent('download'), page.locator('#download').click()]);
  did.file = (await stat(await download.path())).size;
  report(did);
});
