import { devices } from 'playwright-core';

/** What the page believes of the machine that it runs on. */
export const emulation = {
  async 'locale-and-timezone'({ newPage, site }) {
    const page = await newPage({ locale: 'de-DE', timezoneId: 'Asia/Tokyo' });
    await page.goto(`${site}/title.html`);
    return page.evaluate(() => [
      navigator.language,
      (1234.5).toLocaleString(),
      Intl.DateTimeFormat().resolvedOptions().timeZone,
      new Date(0).getHours(),
    ]);
  },

  async device({ newPage, site }) {
    const page = await newPage(devices['iPhone 15']);
    await page.goto(`${site}/title.html`);
    const { headers } = await (await page.goto(`${site}/echo`)).json();
    return {
      agent: headers['user-agent'],
      ...(await page.evaluate(() => ({ touch: navigator.maxTouchPoints, ratio: devicePixelRatio, width: screen.width }))),
    };
  },

  async viewport({ newPage, site }) {
    const page = await newPage({ viewport: { width: 640, height: 480 }, deviceScaleFactor: 2 });
    await page.goto(`${site}/title.html`);
    const size = () => page.evaluate(() => `${innerWidth}x${innerHeight}@${devicePixelRatio}`);
    const first = await size();
    await page.setViewportSize({ width: 1024, height: 700 });
    return [first, await size()];
  },

  async media({ newPage, site }) {
    const page = await newPage({ colorScheme: 'dark', reducedMotion: 'reduce' });
    await page.goto(`${site}/form.html`);
    const look = () => page.evaluate(() => [
      getComputedStyle(document.body).backgroundColor,
      matchMedia('(prefers-reduced-motion: reduce)').matches,
      matchMedia('print').matches,
    ]);
    const dark = await look();
    await page.emulateMedia({ colorScheme: 'light', media: 'print' });
    return { dark, light: await look() };
  },

  async 'no-javascript'({ newPage, site }) {
    const page = await newPage({ javaScriptEnabled: false });
    await page.goto(`${site}/coverage.html`);
    return page.title();
  },

  async touch({ newPage, site }) {
    const page = await newPage({ hasTouch: true });
    await page.goto(`${site}/form.html`);
    await page.locator('#count').tap();
    return page.locator('#count').textContent();
  },

  async focus({ newContext, site }) {
    const context = await newContext();
    const pages = [await context.newPage(), await context.newPage()];
    await Promise.all(pages.map((page) => page.goto(`${site}/title.html`)));
    await pages[0].bringToFront();
    return Promise.all(pages.map((page) => page.evaluate(() => [document.hasFocus(), document.visibilityState])));
  },

  async accessibility({ newPage, site }) {
    const page = await newPage();
    await page.goto(`${site}/form.html`);
    return page.locator('form').ariaSnapshot();
  },
};
