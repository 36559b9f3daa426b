// All that a suite changes to take its browsers out of a pool: one per worker, as `browser` is without it.

import { test as base } from '@playwright/test';

export { expect } from '@playwright/test';
export const test = base.extend({
  browser: [
    async ({ playwright }, use) => {
      const browser = await playwright.chromium.connectOverCDP(process.env.CDP_WS);
      await use(browser);
      await browser.close();
    },
    { scope: 'worker' },
  ],
});
