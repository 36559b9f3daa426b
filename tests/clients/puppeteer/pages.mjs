/** What happens inside one page: navigation, scripts, input, dialogs, events. */
export const pages = {
  async goto({ newPage, site }) {
    const page = await newPage();
    const response = await page.goto(`${site}/redirect?n=2`);
    const chain = response.request().redirectChain().map((request) => request.url());
    const missing = await page.goto(`${site}/status/404`);
    const late = await page.goto(`${site}/slow?ms=5000`, { timeout: 200 }).catch(({ name }) => name);
    return { status: response.status(), chain, missing: missing.status(), late };
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
    return {
      sum: await page.evaluate((a, b) => a + b, 2, 3),
      big: (await page.evaluate(() => 'x'.repeat(3_000_000))).length,
      nested: await handle.jsonValue(),
      element: await page.$eval('#text', (element) => element.textContent),
      thrown: await page.evaluate(() => { throw new TypeError('from the page'); }).catch(({ message }) => message),
    };
  },

  async 'expose-function'({ newPage, site }) {
    const page = await newPage();
    await page.exposeFunction('double', (n) => n * 2);
    await page.goto(`${site}/title.html`);
    return page.evaluate(() => window.double(21));
  },

  async 'init-script'({ newPage, site }) {
    const page = await newPage();
    const { identifier } = await page.evaluateOnNewDocument(() => { window.initScript = 'new document'; });
    await page.goto(`${site}/title.html`);
    const first = await page.evaluate(() => window.initScript);
    await page.removeScriptToEvaluateOnNewDocument(identifier);
    await page.reload();
    return [first, await page.evaluate(() => window.initScript ?? 'removed')];
  },

  async 'speculation-rules'({ newPage, site }) {
    const page = await newPage();
    await page.goto(`${site}/speculation.html`);
    // Time to make the page ahead, or to fetch it.
    await new Promise((done) => { setTimeout(done, 700); });
    await Promise.all([page.waitForNavigation({ timeout: 10_000 }), page.click('#link')]);
    // Where it is by its own account: `page.url()` stays behind where Chromium swaps a page in that was made ahead.
    return { title: await page.title(), url: await page.evaluate(() => location.href) };
  },

  async form({ newPage, site }) {
    const page = await newPage();
    await page.goto(`${site}/form.html`);
    await page.locator('#name').fill('Ada');
    await page.select('#colour', 'b');
    await page.click('#agree');
    await page.type('#notes', 'Hi');
    await page.click('#send');
    return JSON.parse(await page.$eval('#sent', (element) => element.textContent));
  },

  async 'keyboard-and-mouse'({ newPage, site }) {
    const page = await newPage();
    await page.goto(`${site}/form.html`);
    await page.focus('#notes');
    await page.keyboard.type('Hi');
    await page.keyboard.down('Shift');
    await page.keyboard.press('Enter');
    await page.keyboard.up('Shift');
    const { x, y } = await (await page.$('#count')).boundingBox();
    await page.mouse.click(x + 3, y + 3, { count: 2 });
    await page.hover('#menu');
    return page.evaluate(() => [
      document.getElementById('keys').textContent,
      document.getElementById('count').textContent,
      getComputedStyle(document.getElementById('hidden')).display,
    ]);
  },

  async waiting({ newPage, site }) {
    const page = await newPage();
    await page.goto(`${site}/form.html`);
    await page.waitForFunction(() => document.getElementById('late').textContent);
    const shadow = await page.waitForSelector('>>> #inner');
    const missing = await page.waitForSelector('#nothing', { timeout: 200 }).catch(({ name }) => name);
    return { shadow: await shadow.evaluate((element) => element.textContent), missing };
  },

  async dialogs({ newPage, site }) {
    const page = await newPage();
    await page.goto(`${site}/dialogs.html`);
    const seen = [];
    page.on('dialog', (dialog) => {
      seen.push([dialog.type(), dialog.message(), dialog.defaultValue()]);
      return dialog.type() === 'confirm' ? dialog.dismiss() : dialog.accept('Ada');
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
    const asked = new Promise((resolve) => page.once('dialog', resolve));
    const closed = new Promise((resolve) => page.once('close', resolve));
    await page.close({ runBeforeUnload: true });
    const dialog = await asked;
    await dialog.accept();
    await closed;
    return dialog.type();
  },

  async 'console-and-errors'({ newPage, site }) {
    const page = await newPage();
    const lines = [];
    page.on('console', (message) => lines.push(`${message.type()}: ${message.text()}`));
    const thrown = new Promise((resolve) => page.once('pageerror', resolve));
    await page.goto(`${site}/console.html`);
    return { thrown: (await thrown).message.split('\n')[0], lines };
  },
};
