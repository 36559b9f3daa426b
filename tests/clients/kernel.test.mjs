// Kernel's own clients, as they come from npm and PyPI, against a pool: each member that the pool has, and its errors.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import Kernel from '@onkernel/sdk';
import { chromium } from 'playwright-core';
import { serve } from '../site/server.mjs';
import { startPool } from './lib/pool.mjs';
import { script } from './lib/script.mjs';

const TOKEN = 'kernel-test-token';
const KINDS = process.env.LEASES ? [process.env.LEASES] : ['exclusive', 'shared'];

/** The status and the code of the error that a call must end with. */
async function refused(call) {
  const error = await call().then(() => assert.fail('it was not refused'), (reason) => reason);
  assert.ok(error instanceof Kernel.APIError, String(error));
  return [error.constructor.name, error.status, error.error?.code];
}

/** All that a list has, page by page. */
async function all(list) {
  const items = [];
  for await (const item of list) items.push(item);
  return items;
}

for (const lease of KINDS) {
  describe(`Kernel's client and ${lease} leases`, () => {
    let pool;
    let site;
    let kernel;

    before(async () => {
      site = await serve();
      pool = await startPool({
        gateway: { token: TOKEN },
        pool: { lease, min_size: 1, max_size: 3, lease_idle_timeout: '90s' },
        'profiles.work': {},
      });
      kernel = new Kernel({ apiKey: TOKEN, baseURL: pool.url.replace('ws:', 'http:'), maxRetries: 0 });
    });
    after(async () => {
      await pool?.stop();
      await site?.close();
    });

    const release = ({ session_id }) => kernel.browserPools.release('default', { session_id });

    test('a browser is acquired with all that may be asked for, used and released', async () => {
      const started = new URL('/form.html?started', site.url).href;
      const browser = await kernel.browserPools.acquire('default', {
        acquire_timeout_seconds: 20,
        name: 'checkout',
        start_url: started,
        tags: { team: 'backend', env: 'staging' },
        telemetry: { enabled: true },
      });
      assert.match(browser.session_id, /^[0-9a-f]{32}$/);
      assert.equal(browser.cdp_ws_url, `${pool.url}devtools/browser/${browser.session_id}`);
      assert.equal(browser.base_url, browser.cdp_ws_url.replace('ws:', 'http:'));
      assert.ok(Math.abs(Date.parse(browser.created_at) - Date.now()) < 60_000, browser.created_at);
      assert.deepEqual(
        [browser.headless, browser.stealth, browser.timeout_seconds, browser.name, browser.start_url],
        [true, false, 90, 'checkout', started],
      );
      assert.deepEqual(browser.pool, { id: 'default', name: 'default' });
      assert.deepEqual(browser.tags, { team: 'backend', env: 'staging' });
      assert.deepEqual(browser.ignored, ['telemetry']);

      const client = await chromium.connectOverCDP(browser.cdp_ws_url);
      const [page] = client.contexts()[0].pages();
      await page.waitForURL(started);
      assert.equal(await page.title(), 'A form');
      await client.close();
      const { webSocketDebuggerUrl } = await fetch(`${browser.base_url}/json/version`).then((answer) => answer.json());
      assert.equal(webSocketDebuggerUrl, browser.cdp_ws_url);

      assert.deepEqual(await refused(() => kernel.browserPools.acquire('default', { name: 'checkout' })), ['ConflictError', 409, 'name_taken']);
      await release(browser);
      assert.deepEqual(await refused(() => release(browser)), ['APIError', 410, 'lease_over']);
      const again = await kernel.browserPools.acquire('default', { name: 'checkout', timeout_seconds: 30 });
      assert.deepEqual([again.name, again.timeout_seconds, again.tags], ['checkout', 30, {}]);
      await kernel.browserPools.release('default', { session_id: again.session_id, reuse: false });
    });

    test('nothing of a browser is there for the next one', async () => {
      for (const job of [1, 2, 3]) {
        const { session_id, cdp_ws_url } = await kernel.browserPools.acquire('default', {});
        const client = await chromium.connectOverCDP(cdp_ws_url);
        const [context] = client.contexts();
        assert.deepEqual(await context.cookies(), [], `job ${job}`);
        assert.equal(context.pages().length, 1, `job ${job}`);
        await context.addCookies([{ name: 'login', value: 'mine', url: site.url }]);
        await context.newPage();
        await client.close();
        await kernel.browserPools.release('default', { session_id, reuse: true });
      }
    });

    test('an acquire that waits in vain is null, as from a poll', async () => {
      const { browser_pool_config } = await kernel.browserPools.retrieve('default');
      const held = [];
      for (let i = 0; i < browser_pool_config.size; i += 1) held.push(await kernel.browserPools.acquire('default', {}));
      assert.equal(await kernel.browserPools.acquire('default', { acquire_timeout_seconds: 0.2 }), null);
      for (const browser of held) await release(browser);
    });

    test('the pool is listed, read, resized and flushed', async () => {
      const [listed, ...others] = await all(kernel.browserPools.list());
      assert.deepEqual([listed.id, listed.name, others.length], ['default', 'default', 0]);
      assert.deepEqual(await all(kernel.browserPools.list({ name: 'other' })), []);
      assert.deepEqual((await all(kernel.browserPools.list({ query: 'FAUL' }))).length, 1);
      const held = await kernel.browserPools.acquire('default', {});
      const read = await kernel.browserPools.retrieve('default');
      assert.deepEqual([read.acquired_count, read.browser_pool_config.size, read.browser_pool_config.timeout_seconds], [1, 3, 90]);
      assert.ok(Number.isInteger(read.available_count) && Date.parse(read.created_at) > 0);

      const grown = await kernel.browserPools.update('default', { size: 5, stealth: true, timeout_seconds: 700 });
      assert.equal(grown.browser_pool_config.size, 5);
      assert.deepEqual(grown.ignored.sort(), ['stealth', 'timeout_seconds']);
      const back = await kernel.browserPools.update('default', { size: 3, discard_all_idle: true });
      assert.equal(back.browser_pool_config.size, 3);
      await kernel.browserPools.flush('default');
      assert.equal((await kernel.browsers.retrieve(held.session_id)).session_id, held.session_id, 'what is held stays');
      await release(held);

      assert.deepEqual(await refused(() => kernel.browserPools.update('default', { size: 0 })), ['BadRequestError', 400, 'bad_size']);
      for (const call of [
        () => kernel.browserPools.retrieve('other'),
        () => kernel.browserPools.update('other', { size: 1 }),
        () => kernel.browserPools.flush('other'),
        () => kernel.browserPools.acquire('other', {}),
        () => kernel.browserPools.release('other', { session_id: 'x' }),
      ]) assert.deepEqual(await refused(call), ['NotFoundError', 404, 'unknown_pool']);
      // There is one, which the operator makes.
      for (const call of [() => kernel.browserPools.create({ size: 1 }), () => kernel.browserPools.delete('default')]) {
        assert.deepEqual((await refused(call)).slice(1), [405, 'wrong_method']);
      }
    });

    test('browsers are listed page by page, by name and by tags, read and deleted', async () => {
      const held = [];
      for (const [name, team] of [['one', 'a'], ['two', 'b'], ['three', 'a']]) {
        held.push(await kernel.browserPools.acquire('default', { name, tags: { team } }));
      }
      const names = async (query) => (await all(kernel.browsers.list(query))).map(({ name }) => name);
      assert.deepEqual(await names({ limit: 1 }), ['one', 'two', 'three']);
      assert.deepEqual(await names({ tags: { team: 'a' } }), ['one', 'three']);
      assert.deepEqual(await names({ query: 'TW' }), ['two']);
      assert.deepEqual(await names({ query: held[2].session_id }), ['three']);
      assert.deepEqual(await names({ status: 'deleted' }), []);
      assert.deepEqual(await names({ offset: 2, status: 'all' }), ['three']);

      const { waited_ms, ignored, ...shown } = held[1];
      assert.deepEqual(await kernel.browsers.retrieve('two'), shown);
      assert.deepEqual(await kernel.browsers.retrieve(held[1].session_id), shown);
      await kernel.browsers.deleteByID('one');
      await kernel.browsers.deleteByID(held[1].session_id);
      const deadline = performance.now() + 5_000;
      while ((await names()).length > 1 && performance.now() < deadline) await delay(20);
      assert.deepEqual(await names(), ['three']);
      assert.deepEqual(await refused(() => kernel.browsers.retrieve(held[1].session_id)), ['APIError', 410, 'lease_over']);
      assert.deepEqual(await refused(() => kernel.browsers.deleteByID(held[1].session_id)), ['APIError', 410, 'lease_over']);
      for (const id of ['one', '0'.repeat(32), 'nobody']) {
        assert.deepEqual(await refused(() => kernel.browsers.retrieve(id)), ['NotFoundError', 404, 'unknown_lease']);
        assert.deepEqual(await refused(() => kernel.browsers.deleteByID(id)), ['NotFoundError', 404, 'unknown_lease']);
      }
      assert.deepEqual(await refused(() => kernel.browsers.list({ wrong: 1 }).then(all)), ['BadRequestError', 400, 'unknown_parameter']);
      await release(held[2]);
    });

    test('its client for Python does the same jobs', async () => {
      const { code, lines, stderr } = await script('kernel_sdk.py', [kernel.baseURL, new URL(site.url).origin, '--token', TOKEN]);
      assert.deepEqual([code, lines.length], [0, 5], stderr);
    });

    test('what is wrong or not offered is refused by a sentence', async () => {
      const acquire = (body) => refused(() => kernel.browserPools.acquire('default', body));
      assert.deepEqual(await acquire({ headles: true }), ['BadRequestError', 400, 'bad_body']);
      for (const body of [
        { timeout_seconds: 0 },
        { acquire_timeout_seconds: -1 },
        { name: 'a/b' },
        { tags: { key: 'x'.repeat(300) } },
        { start_url: `https://a.example/${'x'.repeat(9000)}` },
      ]) assert.deepEqual(await acquire(body), ['BadRequestError', 400, 'bad_parameter'], JSON.stringify(body).slice(0, 60));
      assert.deepEqual(await acquire({ profile: { name: 'nobody' } }), ['NotFoundError', 404, 'unknown_profile']);
      const work = await kernel.browserPools.acquire('default', { profile: { name: 'work' }, headless: false, viewport: { width: 1, height: 1 } });
      assert.deepEqual([work.profile, work.ignored.sort()], [{ id: 'work', name: 'work' }, ['headless', 'viewport']]);
      for (const call of [
        () => kernel.browsers.replays.list(work.session_id),
        () => kernel.browsers.replays.start(work.session_id),
        () => kernel.profiles.list(),
        () => kernel.profiles.retrieve('work'),
      ]) assert.deepEqual(await refused(call), ['NotFoundError', 404, 'not_offered']);
      await kernel.browsers.deleteByID(work.session_id);
      const stranger = new Kernel({ apiKey: 'wrong', baseURL: kernel.baseURL, maxRetries: 0 });
      for (const call of [
        () => stranger.browserPools.acquire('default', {}),
        () => stranger.browserPools.list(),
        () => stranger.browserPools.update('default', { size: 1 }),
        () => stranger.browsers.list(),
        () => stranger.browsers.deleteByID('one'),
      ]) assert.deepEqual(await refused(call), ['AuthenticationError', 401, 'unauthorized']);
    });
  });
}
