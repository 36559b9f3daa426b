import { expect } from '../lib/steps.mjs';

/** Contexts: the default one and those that the client makes, and what they keep apart. */
export const contexts = {
  // Before any other step has opened or closed a page in the default context.
  async 'first-page'({ browser, site }) {
    const [context] = browser.contexts();
    const count = () => context.pages().length;
    const [page] = context.pages();
    const begun = { url: page.url(), visible: await page.evaluate(() => document.visibilityState), pages: count() };
    await page.goto(`${site}/title.html`);
    const shown = { title: await page.title(), history: await page.evaluate(() => history.length) };
    const second = await context.newPage();
    const both = count();
    await page.close();
    const left = count();
    await second.close();
    return { begun, shown, both, left, none: count() };
  },

  async 'default-context'({ browser, site }) {
    const [context] = browser.contexts();
    const page = await context.newPage();
    await page.goto(`${site}/title.html`);
    const title = await page.title();
    await page.close();
    return { title, contexts: browser.contexts().length };
  },

  async 'default-context-storage'({ browser, site }) {
    const [context] = browser.contexts();
    const before = await context.cookies(site);
    await context.addCookies([{ name: 'default', value: '1', url: site }]);
    const page = await context.newPage();
    await page.goto(`${site}/title.html`);
    await page.evaluate(() => localStorage.setItem('default', '2'));
    const second = await context.newPage();
    await second.goto(`${site}/title.html`);
    const seen = await second.evaluate(() => [document.cookie, localStorage.getItem('default')]);
    await second.evaluate(() => localStorage.clear());
    await context.clearCookies();
    await Promise.all([page.close(), second.close()]);
    return { before, seen, after: await context.cookies(site) };
  },

  async 'contexts-are-isolated'({ browser, newContext, site }) {
    const [one, two] = [await newContext(), await newContext()];
    const pages = await Promise.all([one.newPage(), two.newPage()]);
    await Promise.all(pages.map((page) => page.goto(`${site}/storage.html`)));
    await pages[0].evaluate(() => write('one'));
    const found = await pages[1].evaluate(() => read());
    delete found.overrides;
    return { found, listed: browser.contexts().length - 1 };
  },

  async cookies({ newContext, site }) {
    const context = await newContext();
    await context.addCookies([
      { name: 'plain', value: '1', url: site },
      { name: 'hidden', value: '2', url: site, httpOnly: true, sameSite: 'Strict' },
    ]);
    const page = await context.newPage();
    await page.goto(`${site}/title.html`);
    const visible = await page.evaluate(() => document.cookie);
    const sent = await (await page.goto(`${site}/cookie`)).json();
    const all = (await context.cookies()).map(({ name, httpOnly, sameSite }) => ({ name, httpOnly, sameSite }));
    await context.clearCookies({ name: 'plain' });
    const left = (await context.cookies()).map(({ name }) => name);
    await context.clearCookies();
    return { visible, sent, all, left, end: (await context.cookies()).length };
  },

  async 'storage-state'({ newContext, site }) {
    const first = await newContext();
    const page = await first.newPage();
    await page.goto(`${site}/title.html`);
    await page.evaluate(() => { document.cookie = 'kept=1; Max-Age=1000'; localStorage.setItem('kept', '2'); });
    const storageState = await first.storageState();
    const again = await (await newContext({ storageState })).newPage();
    await again.goto(`${site}/title.html`);
    return again.evaluate(() => [document.cookie, localStorage.getItem('kept')]);
  },

  async permissions({ newContext, site }) {
    const context = await newContext({ geolocation: { latitude: 52.5, longitude: 13.4 } });
    const page = await context.newPage();
    await page.goto(`${site}/title.html`);
    const state = () => page.evaluate(async () => (await navigator.permissions.query({ name: 'geolocation' })).state);
    const before = await state();
    await context.grantPermissions(['geolocation'], { origin: new URL(site).origin });
    const granted = await state();
    const place = await page.evaluate(
      () => new Promise((done, failed) => {
        navigator.geolocation.getCurrentPosition(({ coords }) => done([coords.latitude, coords.longitude]), failed);
      }),
    );
    await context.clearPermissions();
    return { before, granted, place, cleared: await state() };
  },

  async clipboard({ newContext, site }) {
    const context = await newContext({ permissions: ['clipboard-read', 'clipboard-write'] });
    const page = await context.newPage();
    await page.goto(`${site}/title.html`);
    return page.evaluate(async () => {
      await navigator.clipboard.writeText('copied');
      const text = await navigator.clipboard.readText();
      await navigator.clipboard.writeText('');
      return text;
    });
  },

  async 'context-close-closes-its-pages'({ browser, site }) {
    const context = await browser.newContext();
    const pages = [await context.newPage(), await context.newPage()];
    await pages[0].goto(`${site}/title.html`);
    const closed = [];
    pages.forEach((page, i) => page.on('close', () => closed.push(i)));
    await context.close();
    expect(!browser.contexts().includes(context), 'the context is still listed');
    return closed.sort();
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
