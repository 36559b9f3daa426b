/** How a navigation ended: its status, or Chromium's name of the error. */
const netError = (navigation) => navigation.then((response) => response.status(), ({ message }) => /net::\w+/.exec(message)[0]);

/** Requests and responses, seen and changed by the client. */
export const network = {
  async 'route-fulfils'({ newPage, site }) {
    const page = await newPage();
    await page.route('**/visit/1/data.json', (route) => route.fulfill({ json: { text: 'from the client' } }));
    await page.goto(`${site}/visit/1`);
    await page.getByText('from the client').waitFor();
    return page.locator('#fetched').textContent();
  },

  async 'route-aborts-and-continues'({ newPage, site }) {
    const page = await newPage();
    await page.goto(`${site}/title.html`);
    await page.route('**/echo?abort', (route) => route.abort('accessdenied'));
    await page.route('**/echo?change', (route) =>
      route.continue({ method: 'POST', postData: 'changed', headers: { ...route.request().headers(), 'x-added': 'yes' } }));
    const aborted = await page.evaluate(() => fetch('/echo?abort').then(() => 'answered', () => 'refused'));
    const { method, body, headers } = await page.evaluate(async () => (await fetch('/echo?change')).json());
    await page.unrouteAll();
    const untouched = await page.evaluate(async () => (await (await fetch('/echo?change')).json()).method);
    return { aborted, method, body, added: headers['x-added'], untouched };
  },

  async 'route-of-a-context'({ newContext, site }) {
    const context = await newContext();
    await context.route('**/*.png', (route) => route.abort());
    const page = await context.newPage();
    const failed = [];
    page.on('requestfailed', (request) => failed.push(new URL(request.url()).pathname));
    await page.goto(`${site}/visit/2`);
    return failed;
  },

  async 'requests-and-responses'({ newPage, site }) {
    const page = await newPage();
    const seen = [];
    page.on('response', (response) => seen.push(`${response.status()} ${response.request().resourceType()} ${new URL(response.url()).pathname}`));
    await page.goto(`${site}/visit/3`, { waitUntil: 'networkidle' });
    return seen.filter((line) => !line.includes('favicon')).sort();
  },

  async 'response-bodies'({ newPage, site }) {
    const page = await newPage();
    const [response] = await Promise.all([page.waitForResponse('**/data.json'), page.goto(`${site}/visit/4`)]);
    return {
      body: await response.json(),
      type: await response.headerValue('content-type'),
      fromServiceWorker: response.fromServiceWorker(),
      timing: response.request().timing().responseStart >= 0,
      // The address of the server is Chromium's word for where the bytes came from.
      server: (await response.serverAddr()).ipAddress,
    };
  },

  async 'extra-headers'({ newContext, site }) {
    const context = await newContext({ extraHTTPHeaders: { 'x-extra': 'from the context' } });
    const page = await context.newPage();
    const first = (await (await page.goto(`${site}/echo`)).json()).headers['x-extra'];
    await page.setExtraHTTPHeaders({ 'x-extra': 'from the page' });
    return [first, (await (await page.goto(`${site}/echo`)).json()).headers['x-extra']];
  },

  async credentials({ newPage, site }) {
    const without = await netError((await newPage()).goto(`${site}/auth`));
    const page = await newPage({ httpCredentials: { username: 'user', password: 'secret' } });
    await page.goto(`${site}/auth`);
    return { without, title: await page.title() };
  },

  async offline({ newContext, site }) {
    const context = await newContext();
    const page = await context.newPage();
    await page.goto(`${site}/title.html`);
    await context.setOffline(true);
    const ask = () => page.evaluate(() => fetch('/echo').then(() => 'answered', () => 'failed'));
    const off = [await ask(), await page.evaluate(() => navigator.onLine)];
    await context.setOffline(false);
    return { off, on: [await ask(), await page.evaluate(() => navigator.onLine)] };
  },

  async 'certificate-errors'({ newPage, site }) {
    const { https } = await (await fetch(`${site}/__origins`)).json();
    const strict = await netError((await newPage()).goto(`${https}/title.html`));
    const lenient = await newPage({ ignoreHTTPSErrors: true });
    await lenient.goto(`${https}/title.html`);
    const after = await netError((await newPage()).goto(`${https}/title.html`));
    return { strict, title: await lenient.title(), after };
  },
};
