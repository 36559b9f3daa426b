import { expect } from '../lib/steps.mjs';

/** The protocol underneath: sessions, screencast, coverage, windows, tracing. */
export const protocol = {
  async version({ browser }) {
    const product = await browser.version();
    return { product: product.split('/')[0].replace('Headless', ''), agent: (await browser.userAgent()).includes('Chrome/') };
  },

  async 'cdp-session-of-a-page'({ newPage, site }) {
    const page = await newPage();
    await page.goto(`${site}/title.html`);
    const session = await page.createCDPSession();
    const { result } = await session.send('Runtime.evaluate', { expression: '6 * 7' });
    const refused = await session.send('Runtime.noSuchMethod').catch(({ message }) => message);
    await session.detach();
    return { value: result.value, refused };
  },

  async 'cdp-session-of-the-browser'({ browser, newPage, site }) {
    const page = await newPage();
    await page.goto(`${site}/title/only%20this`);
    const session = await browser.target().createCDPSession();
    const { protocolVersion } = await session.send('Browser.getVersion');
    const { targetInfos } = await session.send('Target.getTargets');
    await session.detach();
    const pages = targetInfos.filter(({ type, url }) => type === 'page' && url !== 'about:blank').map(({ title }) => title);
    return { protocolVersion, pages };
  },

  async screencast({ newPage, site }) {
    const page = await newPage();
    await page.goto(`${site}/moving.html`);
    const session = await page.createCDPSession();
    let frames = 0;
    const enough = new Promise((resolve) => {
      session.on('Page.screencastFrame', async ({ data, sessionId }) => {
        expect(data.length > 0, 'an empty frame');
        frames += 1;
        if (frames === 3) resolve();
        await session.send('Page.screencastFrameAck', { sessionId }).catch(() => {});
      });
    });
    await session.send('Page.startScreencast', { format: 'jpeg', quality: 40 });
    await enough;
    await session.send('Page.stopScreencast');
    return 'three frames';
  },

  async coverage({ newPage, site }) {
    const page = await newPage();
    await page.coverage.startJSCoverage({ includeRawScriptCoverage: true });
    await page.coverage.startCSSCoverage();
    await page.goto(`${site}/coverage.html`);
    const scripts = await page.coverage.stopJSCoverage();
    const styles = await page.coverage.stopCSSCoverage();
    const { rawScriptCoverage } = scripts.find(({ url }) => url.endsWith('coverage.js'));
    return {
      script: rawScriptCoverage.functions.map(({ functionName, ranges }) => [functionName, ranges[0].count]),
      style: styles.map(({ text, ranges }) => ranges.map(({ start, end }) => text.slice(start, end).split(' ')[0])),
    };
  },

  async window({ newPage, site }) {
    const page = await newPage();
    await page.goto(`${site}/title.html`);
    const session = await page.createCDPSession();
    const { windowId } = await session.send('Browser.getWindowForTarget');
    await session.send('Browser.setWindowBounds', { windowId, bounds: { width: 900, height: 700 } });
    const { bounds } = await session.send('Browser.getWindowBounds', { windowId });
    return `${bounds.width}x${bounds.height}`;
  },

  async metrics({ newPage, site }) {
    const page = await newPage();
    await page.goto(`${site}/title.html`);
    return Object.keys(await page.metrics()).sort();
  },

  async 'pages-of-the-browser'({ browser, newPage, site }) {
    const page = await newPage();
    await page.goto(`${site}/title/listed`);
    const titles = await Promise.all((await browser.pages()).map((candidate) => candidate.title()));
    return titles.filter(Boolean);
  },

  async tracing({ newPage, site }) {
    const page = await newPage();
    await page.tracing.start();
    await page.goto(`${site}/title.html`);
    const trace = JSON.parse(Buffer.from(await page.tracing.stop()).toString());
    return trace.traceEvents.length > 0;
  },
};
