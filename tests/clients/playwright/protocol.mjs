import { expect } from '../lib/steps.mjs';

/** The protocol underneath: sessions, screencast, coverage, windows, tracing. */
export const protocol = {
  async 'cdp-session-of-a-page'({ newContext, site }) {
    const context = await newContext();
    const page = await context.newPage();
    await page.goto(`${site}/title.html`);
    const session = await context.newCDPSession(page);
    const { result } = await session.send('Runtime.evaluate', { expression: '6 * 7' });
    const refused = await session.send('Runtime.noSuchMethod').catch(({ message }) => message.split('\n')[0]);
    const { targetInfo } = await session.send('Target.getTargetInfo');
    await session.detach();
    return { value: result.value, refused, type: targetInfo.type, title: targetInfo.title };
  },

  async 'cdp-session-of-a-frame'({ newContext, site }) {
    const context = await newContext();
    const page = await context.newPage();
    await page.goto(`${site}/frames.html`);
    await page.frameLocator('iframe[name=localhost]').locator('#who').waitFor();
    let session;
    try {
      session = await context.newCDPSession(page.frame('localhost'));
    } catch (error) {
      // The headless shell puts frames of other sites in processes of their own only with --site-per-process.
      expect(error.message.includes('does not have a separate CDP session'), error.message);
      return 'no session of its own';
    }
    const { result } = await session.send('Runtime.evaluate', { expression: 'location.hostname' });
    return result.value;
  },

  async 'cdp-session-of-the-browser'({ browser, newPage, site }) {
    const page = await newPage();
    await page.goto(`${site}/title/only%20this`);
    const session = await browser.newBrowserCDPSession();
    const { product, protocolVersion } = await session.send('Browser.getVersion');
    const { targetInfos } = await session.send('Target.getTargets');
    await session.detach();
    // A page of its own that a Chromium opened at start, or a warm one, is no concern of this step.
    const pages = targetInfos.filter(({ type, url }) => type === 'page' && url !== 'about:blank').map(({ title }) => title);
    return { product: product.split('/')[0].replace('Headless', ''), protocolVersion, pages };
  },

  async screencast({ newContext, site }) {
    const context = await newContext();
    const page = await context.newPage();
    await page.goto(`${site}/moving.html`);
    const session = await context.newCDPSession(page);
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
    await page.coverage.startJSCoverage();
    await page.coverage.startCSSCoverage();
    await page.goto(`${site}/coverage.html`);
    const scripts = await page.coverage.stopJSCoverage();
    const styles = await page.coverage.stopCSSCoverage();
    const calls = scripts.find(({ url }) => url.endsWith('coverage.js')).functions;
    return {
      script: calls.map(({ functionName, ranges }) => [functionName, ranges[0].count]),
      style: styles.map(({ text, ranges }) => ranges.map(({ start, end }) => text.slice(start, end).split(' ')[0])),
    };
  },

  async window({ newContext, site }) {
    const context = await newContext();
    const page = await context.newPage();
    await page.goto(`${site}/title.html`);
    const session = await context.newCDPSession(page);
    const { windowId } = await session.send('Browser.getWindowForTarget');
    await session.send('Browser.setWindowBounds', { windowId, bounds: { width: 900, height: 700 } });
    const { bounds } = await session.send('Browser.getWindowBounds', { windowId });
    return `${bounds.width}x${bounds.height}`;
  },

  async 'performance-metrics'({ newContext, site }) {
    const context = await newContext();
    const page = await context.newPage();
    await page.goto(`${site}/title.html`);
    const session = await context.newCDPSession(page);
    await session.send('Performance.enable');
    const { metrics } = await session.send('Performance.getMetrics');
    return metrics.map(({ name }) => name).sort().slice(0, 5);
  },

  async 'trace-of-playwright'({ newContext, site }) {
    const context = await newContext();
    await context.tracing.start({ snapshots: true, screenshots: true });
    const page = await context.newPage();
    await page.goto(`${site}/title.html`);
    await context.tracing.stop();
  },

  async tracing({ browser, newPage, site }) {
    const page = await newPage();
    await browser.startTracing(page);
    await page.goto(`${site}/title.html`);
    const trace = JSON.parse((await browser.stopTracing()).toString());
    return trace.traceEvents.length > 0;
  },
};
