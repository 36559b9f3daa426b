/** Requests and responses, seen and changed by the client. */
export const network = {
  async interception({ newPage, site }) {
    const page = await newPage();
    await page.setRequestInterception(true);
    page.on('request', (request) => {
      const { pathname } = new URL(request.url());
      if (pathname.endsWith('.png')) request.abort();
      else if (pathname.endsWith('data.json')) request.respond({ contentType: 'application/json', body: '{"text":"from the client"}' });
      else request.continue({ headers: { ...request.headers(), 'x-added': 'yes' } });
    });
    const failed = [];
    page.on('requestfailed', (request) => failed.push(new URL(request.url()).pathname));
    await page.goto(`${site}/visit/1`);
    await page.waitForFunction(() => document.getElementById('fetched').textContent);
    const text = await page.$eval('#fetched', (element) => element.textContent);
    const { headers } = await (await page.goto(`${site}/echo`)).json();
    await page.setRequestInterception(false);
    return { text, failed, added: headers['x-added'] };
  },

  async 'requests-and-responses'({ newPage, site }) {
    const page = await newPage();
    const seen = [];
    page.on('response', (response) => seen.push(`${response.status()} ${response.request().resourceType()} ${new URL(response.url()).pathname}`));
    const answered = page.waitForResponse((response) => response.url().endsWith('data.json'));
    await page.goto(`${site}/visit/3`, { waitUntil: 'networkidle0' });
    const response = await answered;
    return { seen: seen.filter((line) => !line.includes('favicon')).sort(), body: await response.json(), remote: response.remoteAddress().ip };
  },

  async 'extra-headers'({ newPage, site }) {
    const page = await newPage();
    await page.setExtraHTTPHeaders({ 'x-extra': 'from the page' });
    return (await (await page.goto(`${site}/echo`)).json()).headers['x-extra'];
  },

  async credentials({ newPage, site }) {
    const page = await newPage();
    await page.authenticate({ username: 'user', password: 'secret' });
    await page.goto(`${site}/auth`);
    return page.title();
  },

  async offline({ newPage, site }) {
    const page = await newPage();
    await page.goto(`${site}/title.html`);
    const ask = () => page.evaluate(() => fetch('/echo').then(() => 'answered', () => 'failed'));
    await page.setOfflineMode(true);
    const off = await ask();
    await page.setOfflineMode(false);
    return [off, await ask()];
  },

  async 'certificate-errors'({ newPage, site }) {
    const { https } = await (await fetch(`${site}/__origins`)).json();
    const page = await newPage();
    const strict = await page.goto(`${https}/title.html`).catch(({ message }) => /net::\w+/.exec(message)[0]);
    const session = await page.createCDPSession();
    await session.send('Security.setIgnoreCertificateErrors', { ignore: true });
    const lenient = await page.goto(`${https}/title.html`);
    await session.send('Security.setIgnoreCertificateErrors', { ignore: false });
    return { strict, lenient: lenient.status() };
  },
};
