/** What the page believes of the machine that it runs on. */
export const emulation = {
  async device({ newPage, site }) {
    const page = await newPage();
    await page.setUserAgent({ userAgent: 'Mozilla/5.0 (a phone)' });
    await page.setViewport({ width: 390, height: 800, deviceScaleFactor: 3, isMobile: true, hasTouch: true });
    const { headers } = await (await page.goto(`${site}/echo`)).json();
    await page.goto(`${site}/form.html`);
    await page.tap('#count');
    return {
      agent: headers['user-agent'],
      count: await page.$eval('#count', (element) => element.textContent),
      ...(await page.evaluate(() => ({ touch: navigator.maxTouchPoints, ratio: devicePixelRatio, width: screen.width }))),
    };
  },

  async 'locale-and-timezone'({ newPage, site }) {
    const page = await newPage();
    await page.emulateTimezone('Asia/Tokyo');
    await page.goto(`${site}/title.html`);
    return page.evaluate(() => [Intl.DateTimeFormat().resolvedOptions().timeZone, new Date(0).getHours()]);
  },

  async media({ newPage, site }) {
    const page = await newPage();
    await page.goto(`${site}/form.html`);
    await page.emulateMediaFeatures([{ name: 'prefers-color-scheme', value: 'dark' }]);
    await page.emulateMediaType('print');
    return page.evaluate(() => [getComputedStyle(document.body).backgroundColor, matchMedia('print').matches]);
  },

  async throttling({ newPage, site }) {
    const page = await newPage();
    await page.emulateCPUThrottling(2);
    await page.goto(`${site}/title.html`);
    const title = await page.title();
    await page.emulateCPUThrottling(1);
    return title;
  },

  async 'no-javascript'({ newPage, site }) {
    const page = await newPage();
    await page.setJavaScriptEnabled(false);
    await page.goto(`${site}/coverage.html`);
    return page.title();
  },

  async focus({ newContext, site }) {
    const context = await newContext();
    const pages = [await context.newPage(), await context.newPage()];
    for (const page of pages) await page.goto(`${site}/title.html`);
    await pages[0].bringToFront();
    return pages[0].evaluate(() => document.visibilityState);
  },

  async accessibility({ newPage, site }) {
    const page = await newPage();
    await page.goto(`${site}/form.html`);
    const { role, name, children } = await page.accessibility.snapshot();
    return { role, name, children: children.slice(0, 6).map((child) => [child.role, child.name]) };
  },
};
