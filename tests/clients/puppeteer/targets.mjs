/**
 * Opens a page with frames and resolves to what `use` makes of it, on a fresh page if an element of a frame does not
 * come. Where two frames go to processes of their own at once, Puppeteer may take one for a frame of its parent's
 * process again, and then never finds anything in it: on any Chromium, in a few of a hundred pages on a busy machine.
 */
async function withFrames(newPage, url, use) {
  for (let left = 4; ; left -= 1) {
    const page = await newPage();
    await page.goto(url);
    page.setDefaultTimeout(5_000);
    try {
      return await use(page);
    } catch (error) {
      if (error.name !== 'TimeoutError' || left === 0) throw error;
    }
  }
}

/** Everything that is a target of its own: popups, frames of other sites, workers, the browser itself. */
export const targets = {
  async 'browser-target'({ browser }) {
    const types = new Set(browser.targets().map((target) => target.type()));
    return { own: browser.target().type(), listed: types.has('browser') };
  },

  async 'popup-with-opener'({ newPage, site }) {
    const page = await newPage();
    await page.goto(`${site}/popups.html`);
    const opened = new Promise((resolve) => page.once('popup', resolve));
    await page.click('#opener');
    const popup = await opened;
    await popup.waitForSelector('#close');
    const result = {
      title: await popup.title(),
      reached: await popup.evaluate(() => window.opener.document.title),
      opener: popup.target().opener() === page.target(),
      pages: (await page.browserContext().pages()).length,
    };
    const closed = new Promise((resolve) => popup.once('close', resolve));
    // The click is answered only if the page lives long enough to do so.
    await popup.click('#close').catch(() => {});
    await closed;
    return result;
  },

  async 'popup-without-opener'({ newContext, site }) {
    const context = await newContext();
    const page = await context.newPage();
    await page.goto(`${site}/popups.html`);
    const titles = [];
    for (const [id, query] of [['noopener', '?noopener'], ['link', '?link']]) {
      const opened = context.waitForTarget((target) => target.url().endsWith(query));
      // A page behind its popup is hidden, and nothing in it moves that a click waits for.
      await page.bringToFront();
      await page.click(`#${id}`);
      const popup = await (await opened).page();
      await popup.waitForSelector('#close');
      titles.push(await popup.title());
    }
    return { titles, pages: (await context.pages()).length };
  },

  async 'popup-of-another-site'({ newContext, site }) {
    const context = await newContext();
    const page = await context.newPage();
    await page.goto(`${site}/popups.html`);
    const opened = context.waitForTarget((target) => target.url().includes('?cross'));
    await page.click('#cross');
    const popup = await (await opened).page();
    await popup.waitForSelector('#close');
    return { title: await popup.title(), url: popup.url() };
  },

  frames({ newPage, site }) {
    return withFrames(newPage, `${site}/frames.html`, async (page) => {
      const found = {};
      for (const path of ['/frame.html?same', '/frame.html?localhost', '/frame.html?ipv6', '/frame.html?inner']) {
        const frame = await page.waitForFrame((candidate) => candidate.url().includes(path));
        const button = await frame.waitForSelector('#hit');
        // The frames move while the others load: click until one has hit.
        while ((await button.evaluate((element) => element.textContent)) !== 'hit') await button.click();
        found[path] = await frame.$eval('#who', (element) => element.textContent);
      }
      return found;
    });
  },

  'frame-navigates-across-sites'({ newPage, site }) {
    return withFrames(newPage, `${site}/frames.html`, async (page) => {
      const { port } = new URL(site);
      const move = async (url) => {
        await page.$eval('iframe[name=same]', (frame, to) => { frame.src = to; }, url);
        const frame = await page.waitForFrame((candidate) => candidate.url() === url);
        await frame.waitForSelector('#text');
        return frame.evaluate(() => location.hostname);
      };
      return [await move(`http://localhost:${port}/title.html`), await move(`${site}/title.html?back`)];
    });
  },

  async 'dedicated-worker'({ newPage, site }) {
    const page = await newPage();
    const created = new Promise((resolve) => page.once('workercreated', resolve));
    await page.goto(`${site}/workers.html?dedicated`);
    const worker = await created;
    await page.waitForFunction(() => document.getElementById('dedicated').textContent === 'doubled 40');
    const greeting = await worker.evaluate(() => self.greeting);
    const destroyed = new Promise((resolve) => page.once('workerdestroyed', resolve));
    await page.evaluate(() => window.dedicated.terminate());
    await destroyed;
    return { greeting, url: worker.url(), left: page.workers().length };
  },

  async 'shared-worker'({ newContext, site }) {
    const context = await newContext();
    const page = await context.newPage();
    await page.goto(`${site}/workers.html?shared`);
    await page.waitForFunction(() => document.getElementById('shared').textContent === '1 connected');
    const target = await context.waitForTarget((candidate) => candidate.type() === 'shared_worker');
    // Not `worker.evaluate`: Puppeteer 25 has it wait for an event that a worker which runs already does not send.
    const { client } = await target.worker();
    return (await client.send('Runtime.evaluate', { expression: 'self.greeting' })).result.value;
  },

  async 'service-worker'({ newContext, site }) {
    const context = await newContext();
    const page = await context.newPage();
    const found = context.waitForTarget((candidate) => candidate.type() === 'service_worker');
    await page.goto(`${site}/workers.html?service`);
    const worker = await (await found).worker();
    await page.waitForFunction(() => document.getElementById('service').textContent);
    return {
      greeting: await worker.evaluate(() => self.greeting),
      text: await page.$eval('#service', (element) => element.textContent),
    };
  },

  async 'target-events'({ browser, newContext, site }) {
    const context = await newContext();
    const events = [];
    const note = (what) => (target) => {
      if (target.browserContext() === context) events.push(`${what} ${target.type()}`);
    };
    const listeners = { targetcreated: note('created'), targetdestroyed: note('destroyed') };
    for (const [event, listener] of Object.entries(listeners)) browser.on(event, listener);
    const page = await context.newPage();
    await page.goto(`${site}/title.html`);
    const destroyed = new Promise((resolve) => browser.once('targetdestroyed', resolve));
    await page.close();
    await destroyed;
    for (const [event, listener] of Object.entries(listeners)) browser.off(event, listener);
    return events;
  },
};
