import { expect } from '../lib/steps.mjs';

/** What happens inside one page: navigation, scripts, input, dialogs, events. */
export const pages = {
  async 'goto-title'({ newPage, site }) {
    const page = await newPage();
    const response = await page.goto(`${site}/title.html`);
    return { status: response.status(), title: await page.title(), url: page.url() };
  },

  async 'goto-redirect'({ newPage, site }) {
    const page = await newPage();
    const response = await page.goto(`${site}/redirect?n=2`);
    const chain = [];
    for (let r = response.request(); r; r = r.redirectedFrom()) chain.push(r.url());
    return { url: page.url(), chain };
  },

  async 'goto-errors'({ newPage, site }) {
    const page = await newPage();
    const missing = await page.goto(`${site}/status/404`);
    const refused = await page.goto('http://127.0.0.1:9/').catch((error) => /net::\w+/.exec(error.message)[0]);
    const late = await page.goto(`${site}/slow?ms=5000`, { timeout: 200 }).catch((error) => error.name);
    return { missing: missing.status(), refused, late };
  },

  async history({ newPage, site }) {
    const page = await newPage();
    await page.goto(`${site}/title/one`);
    await page.goto(`${site}/title/two`);
    await page.goBack();
    const back = await page.title();
    await page.goForward();
    await page.reload();
    return [back, await page.title()];
  },

  async 'set-content'({ newPage }) {
    const page = await newPage();
    await page.setContent('<title>Set</title><p>by the client</p>');
    return { title: await page.title(), html: await page.content() };
  },

  async evaluate({ newPage, site }) {
    const page = await newPage();
    await page.goto(`${site}/title.html`);
    const handle = await page.evaluateHandle(() => ({ nested: [1, { two: 2 }] }));
    const thrown = await page.evaluate(() => { throw new TypeError('from the page'); }).catch(({ message }) => message.split('\n')[0]);
    return {
      sum: await page.evaluate(([a, b]) => a + b, [2, 3]),
      date: await page.evaluate(() => new Date(0)),
      big: (await page.evaluate(() => 'x'.repeat(3_000_000))).length,
      nested: await handle.jsonValue(),
      element: await page.$eval('#text', (element) => element.textContent),
      thrown,
    };
  },

  async 'expose-function'({ newPage, site }) {
    const page = await newPage();
    await page.exposeFunction('double', (n) => n * 2);
    await page.goto(`${site}/title.html`);
    return page.evaluate(() => window.double(21));
  },

  async 'init-scripts'({ newContext, site }) {
    const context = await newContext();
    await context.addInitScript(() => { window.initScript = 'context'; });
    const page = await context.newPage();
    await page.addInitScript((text) => { window.initScript += text; }, ' and page');
    await page.goto(`${site}/title.html`);
    return page.evaluate(() => window.initScript);
  },

  async form({ newPage, site }) {
    const page = await newPage();
    await page.goto(`${site}/form.html`);
    await page.getByLabel('Name').fill('Ada');
    await page.getByLabel('Colour').selectOption('b');
    await page.getByLabel('I agree').check();
    await page.getByRole('button', { name: 'Send' }).click();
    return JSON.parse(await page.locator('#sent').textContent());
  },

  async 'keyboard-and-mouse'({ newPage, site }) {
    const page = await newPage();
    await page.goto(`${site}/form.html`);
    await page.locator('#notes').pressSequentially('Hi');
    await page.keyboard.press('Shift+Enter');
    await page.keyboard.press('Control+A');
    const { x, y } = await page.locator('#count').boundingBox();
    await page.mouse.click(x + 3, y + 3, { clickCount: 2 });
    await page.locator('#count').click();
    await page.hover('#menu');
    return {
      keys: await page.locator('#keys').textContent(),
      count: await page.locator('#count').textContent(),
      hovered: await page.locator('#hidden').isVisible(),
    };
  },

  async 'drag-and-drop'({ newPage, site }) {
    const page = await newPage();
    await page.goto(`${site}/form.html`);
    await page.dragAndDrop('#drag', '#drop');
    return page.locator('#drop').textContent();
  },

  async waiting({ newPage, site }) {
    const page = await newPage();
    await page.goto(`${site}/form.html`);
    await page.getByText('came later').waitFor();
    await page.waitForFunction(() => document.readyState === 'complete');
    const missing = await page.locator('#nothing').click({ timeout: 200 }).catch(({ name }) => name);
    return { late: await page.locator('#late').textContent(), shadow: await page.locator('#inner').textContent(), missing };
  },

  async dialogs({ newPage, site }) {
    const page = await newPage();
    await page.goto(`${site}/dialogs.html`);
    const seen = [];
    page.on('dialog', async (dialog) => {
      seen.push([dialog.type(), dialog.message(), dialog.defaultValue()]);
      await (dialog.type() === 'confirm' ? dialog.dismiss() : dialog.accept('Ada'));
    });
    const results = [];
    for (const id of ['alert', 'confirm', 'prompt']) {
      await page.click(`#${id}`);
      results.push(await page.evaluate('result'));
    }
    return { seen, results };
  },

  async beforeunload({ newPage, site }) {
    const page = await newPage();
    await page.goto(`${site}/beforeunload.html`);
    await page.click('#touch');
    const asked = page.waitForEvent('dialog');
    await page.close({ runBeforeUnload: true });
    const dialog = await asked;
    const closed = page.waitForEvent('close');
    await dialog.accept();
    await closed;
    return dialog.type();
  },

  async 'console-and-errors'({ newPage, site }) {
    const page = await newPage();
    const lines = [];
    page.on('console', (message) => lines.push(`${message.type()}: ${message.text()}`));
    const thrown = page.waitForEvent('pageerror');
    await page.goto(`${site}/console.html`);
    return { thrown: (await thrown).message, lines };
  },

  async clock({ newPage, site }) {
    const page = await newPage();
    await page.clock.install({ time: new Date('2030-01-01T00:00:00Z') });
    await page.goto(`${site}/title.html`);
    await page.clock.fastForward('01:00:00');
    return page.evaluate(() => new Date().toISOString().slice(0, 13));
  },

  async crash({ newContext, site }) {
    const context = await newContext();
    const page = await context.newPage();
    await page.goto(`${site}/title.html`);
    const session = await context.newCDPSession(page);
    const crashed = page.waitForEvent('crash');
    session.send('Page.crash').catch(() => {});
    await crashed;
    await page.close();
    const next = await context.newPage();
    await next.goto(`${site}/title.html`);
    expect(!next.isClosed(), 'the context did not survive its page');
    return next.title();
  },
};
