/** Contexts: the default one and those that the client makes, and what they keep apart. */
export const contexts = {
  // Before any other step has opened or closed a page in the default context.
  async 'first-page'({ browser, site }) {
    const count = async () => (await browser.pages()).length;
    const [page] = await browser.pages();
    const targets = () => browser.targets().filter((target) => target.type() === 'page').length;
    const begun = { url: page.url(), visible: await page.evaluate(() => document.visibilityState), pages: await count(), targets: targets() };
    await page.goto(`${site}/title.html`);
    const shown = { title: await page.title(), history: await page.evaluate(() => history.length) };
    const second = await browser.newPage();
    const both = await count();
    await page.close();
    const left = await count();
    await second.close();
    return { begun, shown, both, left, none: await count() };
  },

  async 'default-context'({ browser, site }) {
    const page = await browser.newPage();
    await page.goto(`${site}/title.html`);
    const result = { title: await page.title(), own: page.browserContext() === browser.defaultBrowserContext() };
    await page.close();
    return result;
  },

  async 'default-context-cookies'({ browser, site }) {
    const [name, domain] = ['default', new URL(site).hostname];
    await browser.setCookie({ name, value: '1', domain });
    const page = await browser.newPage();
    await page.goto(`${site}/title.html`);
    const seen = await page.evaluate(() => document.cookie);
    const all = (await browser.cookies()).map((cookie) => cookie.name);
    await browser.deleteCookie(...(await browser.cookies()));
    await page.close();
    return { seen, all, left: (await browser.cookies()).length };
  },

  async 'contexts-are-isolated'({ browser, newContext, site }) {
    const [one, two] = [await newContext(), await newContext()];
    const pages = [await one.newPage(), await two.newPage()];
    for (const page of pages) await page.goto(`${site}/storage.html`);
    await pages[0].evaluate(() => write('one'));
    const found = await pages[1].evaluate(() => read());
    delete found.overrides;
    return { found, listed: browser.browserContexts().length - 1 };
  },

  async 'context-close-closes-its-pages'({ browser, site }) {
    const context = await browser.createBrowserContext();
    const page = await context.newPage();
    await page.goto(`${site}/title.html`);
    const closed = new Promise((resolve) => page.once('close', resolve));
    await context.close();
    await closed;
    return browser.browserContexts().includes(context);
  },

  async permissions({ newContext, site }) {
    const context = await newContext();
    const page = await context.newPage();
    await page.goto(`${site}/title.html`);
    const state = () => page.evaluate(async () => (await navigator.permissions.query({ name: 'geolocation' })).state);
    const before = await state();
    await context.overridePermissions(new URL(site).origin, ['geolocation']);
    await page.setGeolocation({ latitude: 52.5, longitude: 13.4 });
    const place = await page.evaluate(
      () => new Promise((done, failed) => {
        navigator.geolocation.getCurrentPosition(({ coords }) => done([coords.latitude, coords.longitude]), failed);
      }),
    );
    const granted = await state();
    await context.clearPermissionOverrides();
    return { before, granted, place, cleared: await state() };
  },

  async cookies({ newContext, site }) {
    const context = await newContext();
    const { hostname } = new URL(site);
    await context.setCookie({ name: 'plain', value: '1', domain: hostname }, { name: 'hidden', value: '2', domain: hostname, httpOnly: true });
    const page = await context.newPage();
    await page.goto(`${site}/title.html`);
    const visible = await page.evaluate(() => document.cookie);
    const sent = await (await page.goto(`${site}/cookie`)).json();
    const names = (await context.cookies()).map(({ name }) => name).sort();
    await context.deleteCookie(...(await context.cookies()));
    return { visible, sent, names, left: (await context.cookies()).length };
  },

  async 'many-at-once'({ newPage, site }) {
    return Promise.all(
      Array.from({ length: 6 }, async (_, i) => {
        const page = await newPage();
        await page.goto(`${site}/title/number%20${i}`);
        return page.title();
      }),
    );
  },
};
