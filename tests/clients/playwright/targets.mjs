import { expect } from '../lib/steps.mjs';

/** Everything that is a target of its own: popups, frames of other sites, workers. */
export const targets = {
  async 'popup-with-opener'({ newContext, site }) {
    const context = await newContext();
    await context.addInitScript(() => { window.initScript = 'here too'; });
    const page = await context.newPage();
    await page.goto(`${site}/popups.html`);
    const [popup] = await Promise.all([page.waitForEvent('popup'), page.click('#opener')]);
    await popup.waitForLoadState();
    const result = {
      title: await popup.title(),
      opener: (await popup.opener()) === page,
      reached: await popup.evaluate(() => window.opener.document.title),
      initScript: await popup.evaluate(() => window.initScript),
      pages: context.pages().length,
    };
    const closed = popup.waitForEvent('close');
    // The click is answered only if the page lives long enough to do so.
    await popup.click('#close').catch(() => {});
    await closed;
    return result;
  },

  async 'popup-without-opener'({ newContext, site }) {
    const context = await newContext();
    await context.addInitScript(() => { window.initScript = 'here too'; });
    const page = await context.newPage();
    await page.goto(`${site}/popups.html`);
    const titles = [];
    for (const id of ['noopener', 'link']) {
      const [popup] = await Promise.all([context.waitForEvent('page'), page.click(`#${id}`)]);
      await popup.waitForLoadState();
      titles.push([await popup.title(), await popup.evaluate(() => window.initScript)]);
    }
    return { titles, pages: context.pages().length };
  },

  async 'popup-of-another-site'({ newContext, site }) {
    const context = await newContext();
    const page = await context.newPage();
    await page.goto(`${site}/popups.html`);
    const [popup] = await Promise.all([page.waitForEvent('popup'), page.click('#cross')]);
    await popup.waitForLoadState();
    return { title: await popup.title(), url: popup.url() };
  },

  async 'popup-about-blank'({ newPage, site }) {
    const page = await newPage();
    await page.goto(`${site}/popups.html`);
    const [popup] = await Promise.all([page.waitForEvent('popup'), page.click('#blank')]);
    return { url: popup.url(), title: await popup.title() };
  },

  async frames({ newPage, site }) {
    const page = await newPage();
    await page.goto(`${site}/frames.html`);
    const found = {};
    for (const name of ['same', 'localhost', 'ipv6']) {
      const frame = page.frameLocator(`iframe[name=${name}]`);
      found[name] = await frame.locator('#who').textContent();
      await frame.locator('#hit').click();
      found[`${name} button`] = await frame.locator('#hit').textContent();
    }
    const inner = page.frameLocator('iframe[name=localhost]').frameLocator('iframe[name=inner]');
    found.inner = await inner.locator('#who').textContent();
    const urls = page.frames().map((frame) => `${new URL(frame.url()).hostname}${new URL(frame.url()).pathname}`).sort();
    return { found, urls };
  },

  async 'frame-navigates-across-sites'({ newPage, site }) {
    const page = await newPage();
    await page.goto(`${site}/frames.html`);
    // The page moves its frame: a client that asks the frame's own session is cut off by the very move.
    const move = async (url) => {
      await page.locator('iframe[name=same]').evaluate((frame, to) => { frame.src = to; }, url);
      const frame = page.frameLocator('iframe[name=same]');
      await frame.getByText('Some text.').waitFor();
      return frame.locator('#text').evaluate(() => location.hostname);
    };
    const { port } = new URL(site);
    return [await move(`http://localhost:${port}/title.html`), await move(`${site}/title.html?back`)];
  },

  async 'dedicated-worker'({ newPage, site }) {
    const page = await newPage();
    const [worker] = await Promise.all([page.waitForEvent('worker'), page.goto(`${site}/workers.html?dedicated`)]);
    await page.getByText('doubled 40').waitFor();
    const greeting = await worker.evaluate(() => self.greeting);
    const closed = worker.waitForEvent('close');
    await page.evaluate(() => window.dedicated.terminate());
    await closed;
    return { greeting, url: worker.url(), left: page.workers().length };
  },

  async 'blob-worker'({ newPage, site }) {
    const page = await newPage();
    await page.goto(`${site}/workers.html?blob`);
    await page.getByText('from a blob').waitFor();
    return page.workers().map((worker) => worker.url().slice(0, 5));
  },

  async 'shared-worker'({ newContext, site }) {
    const context = await newContext();
    const [one, two] = [await context.newPage(), await context.newPage()];
    await one.goto(`${site}/workers.html?shared`);
    await one.getByText('1 connected').waitFor();
    await two.goto(`${site}/workers.html?shared`);
    await two.getByText('2 connected').waitFor();
    const other = await (await newContext()).newPage();
    await other.goto(`${site}/workers.html?shared`);
    await other.getByText('1 connected').waitFor();
    return 'one worker a context';
  },

  async 'service-worker'({ newContext, site }) {
    const context = await newContext();
    const page = await context.newPage();
    const registered = context.waitForEvent('serviceworker');
    await page.goto(`${site}/workers.html?service`);
    const worker = await registered;
    await page.getByText('answered by the service worker').waitFor();
    const seen = { greeting: await worker.evaluate(() => self.greeting), url: worker.url() };
    await page.evaluate(async () => (await navigator.serviceWorker.getRegistration()).unregister());
    return seen;
  },

  async 'page-of-a-frame-closes'({ newPage, site }) {
    const page = await newPage();
    await page.goto(`${site}/frames.html`);
    await page.frameLocator('iframe[name=localhost]').frameLocator('iframe[name=inner]').locator('#who').waitFor();
    const detached = [];
    page.on('framedetached', (frame) => detached.push(frame.name()));
    await page.evaluate(() => document.querySelector('iframe[name=localhost]').remove());
    await page.waitForFunction(() => document.querySelectorAll('iframe').length === 2);
    expect(page.frame('localhost') === null, 'the frame is still listed');
    return detached.sort();
  },
};
