// Every command of the protocol, sent by the client of a shared lease, at its root and in a page, with the ids
// of another lease wherever a command takes one: the other lease learns and suffers nothing, and nothing of it
// is told. And every number that a command takes, with values that nobody means, beside the other lease.
//
//   node --test tests/clients/sweep.test.mjs
//
// POOL_CLI names the binary (default target/debug/pool-cli).

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { describe, test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { serve } from '../site/server.mjs';
import { executable } from './lib/chromium.mjs';
import { startPool } from './lib/pool.mjs';
import { within } from './lib/steps.mjs';
import { Raw } from './raw.mjs';

const PROTOCOL = new URL('../../pool-chrome/src/protocol/protocol.json', import.meta.url);
const DOMAINS = JSON.parse(readFileSync(PROTOCOL)).domains;

/** What is sent for each number. */
const NUMBERS = [0, -1, 1e7, 2 ** 31, 2 ** 53, 'NaN'];

/** What a paused page or a page that is gone leaves unanswered is given up, in milliseconds. */
const PATIENCE = 1500;

/** Params for a command: those that it requires, and those that could name what is another's. */
function paramsOf(domain, command, foreign) {
  const chosen = (command.parameters ?? []).filter(({ name, optional }) => !optional || name in foreign);
  return Object.fromEntries(chosen.map((parameter) => [parameter.name, valueOf(domain, parameter, foreign)]));
}

/** The type that a `$ref` is about, with its domain. */
function resolve(domain, reference) {
  const [name, owner] = reference.split('.').reverse();
  const home = owner ? DOMAINS.find((candidate) => candidate.domain === owner) : domain;
  return [home, home.types.find(({ id }) => id === name)];
}

function valueOf(domain, type, foreign, depth = 0) {
  if (type.name in foreign) return foreign[type.name];
  if (type.$ref) {
    const [home, target] = resolve(domain, type.$ref);
    const named = foreign[`${home.domain}.${target.id}`];
    return named ?? valueOf(home, { ...target, name: undefined }, foreign, depth + 1);
  }
  if (type.enum) return type.enum[0];
  switch (type.type) {
    case 'integer':
    case 'number': return 1;
    case 'boolean': return true;
    case 'string': return type.name === 'url' ? 'about:blank' : 'x';
    case 'array': return depth > 3 ? [] : [valueOf(domain, type.items, foreign, depth + 1)];
    case 'object': {
      const required = (type.properties ?? []).filter(({ optional }) => !optional);
      return Object.fromEntries(required.map((property) => [property.name, valueOf(domain, property, foreign, depth + 1)]));
    }
    default: return {};
  }
}

/** Where the numbers of a command are: lists of names, in objects and lists. */
function numbersOf(domain, type, path = [], above = []) {
  if (type.$ref) {
    const [home, target] = resolve(domain, type.$ref);
    if (above.includes(target)) return [];
    return numbersOf(home, { ...target, name: undefined }, path, [...above, target]);
  }
  if (type.type === 'integer' || type.type === 'number') return [path];
  if (type.items) return numbersOf(domain, type.items, [...path, 0], above);
  return (type.properties ?? []).flatMap((property) => numbersOf(domain, property, [...path, property.name], above));
}

/** Params with one number set, and what is around it with what it requires. */
function withNumber(domain, command, path, number, known) {
  const params = paramsOf(domain, command, known);
  const [first, ...rest] = path;
  const parameter = command.parameters.find(({ name }) => name === first);
  params[first] ??= valueOf(domain, parameter, known);
  let [home, type] = [domain, parameter];
  let [at, key] = [params, first];
  for (const step of rest) {
    if (type.$ref) [home, type] = resolve(home, type.$ref);
    if (step === 0) {
      at[key] = at[key]?.length ? at[key] : [valueOf(home, type.items, known)];
      type = type.items;
    } else {
      type = type.properties.find(({ name }) => name === step);
      if (typeof at[key] !== 'object') at[key] = {};
      at[key][step] ??= valueOf(home, type, known);
    }
    [at, key] = [at[key], step];
  }
  at[key] = number;
  return params;
}

/** The lease that must notice nothing: its marks all bear a word that nobody else knows. */
async function witness(url, site) {
  const word = randomUUID();
  const raw = await Raw.connect(url);
  const address = `${site.url}/title.html?${word}`;
  const { targetId, sessionId } = await raw.page(address);
  const { defaultBrowserContextId } = await raw.send('Target.getBrowserContexts');
  const { windowId } = await raw.send('Browser.getWindowForTarget', { targetId });
  await raw.send('Storage.setCookies', { cookies: [{ name: 'word', value: word, url: site.url }] });
  const evaluate = async (expression) =>
    (await raw.send('Runtime.evaluate', { expression, returnByValue: true, awaitPromise: true }, sessionId)).result.value;
  const state = async () => ({
    cookies: await raw.send('Storage.getCookies'),
    targets: (await raw.send('Target.getTargets')).targetInfos.map(({ title, url: at, type }) => [type, title, at]),
    bounds: await raw.send('Browser.getWindowBounds', { windowId }),
    page: await evaluate(`(async () => [document.title, location.href, document.visibilityState, navigator.userAgent,
      Intl.DateTimeFormat().resolvedOptions().timeZone, screen.width, innerWidth, navigator.onLine, matchMedia('print').matches,
      Object.keys(window).length, (await navigator.permissions.query({ name: 'geolocation' })).state])()`),
  });
  // A page that is made with an address is empty at first, and what is asked of it as it leaves there fails.
  const shown = () => evaluate('document.readyState + location.href').catch(() => '');
  const loaded = async () => {
    while (await shown() !== `complete${address}`) await delay(20);
  };
  await within(10_000, loaded());
  const foreign = {
    targetId, sessionId, browserContextId: defaultBrowserContextId, contextId: defaultBrowserContextId, windowId, frameId: targetId,
  };
  return { word, raw, state, foreign };
}

/** Another lease can still make pages, see them painted, and talk to those that it has. */
async function assertWell({ raw, foreign }, after) {
  const began = performance.now();
  const work = async () => {
    const { targetId } = await raw.send('Target.createTarget', { url: 'about:blank' });
    await raw.send('Target.closeTarget', { targetId });
    const clip = { x: 0, y: 0, width: 20, height: 20, scale: 1 };
    await raw.send('Page.captureScreenshot', { clip }, foreign.sessionId);
  };
  const well = await within(8000, work()).then(() => 'well', String);
  const took = Math.round(performance.now() - began);
  assert.equal(well, 'well', `${after} held up another lease for ${took} ms`);
}

/** Fills a page with what commands are about: a cache, a database, an animation, a scroller. */
const PREPARED = `(async () => {
  document.body.innerHTML = '<div id=a style="width:200px;height:9000px;background:linear-gradient(red,blue)">x</div><input>';
  document.querySelector('#a').animate({ opacity: [0, 1] }, { duration: 1e6, iterations: Infinity });
  const cache = await caches.open('cache');
  for (let i = 0; i < 5; i++) await cache.put('/' + i, new Response('x'));
  await new Promise((resolve, reject) => {
    const open = indexedDB.open('data', 1);
    open.onupgradeneeded = () => {
      const store = open.result.createObjectStore('store');
      for (let i = 0; i < 5; i++) store.put({ i }, i);
    };
    open.onsuccess = () => { open.result.close(); resolve(); };
    open.onerror = reject;
  });
})()`;

/** A client that gets itself a new lease or a new page when a command has cost it the last one. */
class Attacker {
  constructor(url, address) {
    this.url = url;
    this.address = address;
    this.heard = [];
  }

  async ready() {
    if (!this.raw || this.ended) {
      this.raw = await Raw.connect(this.url);
      this.ended = false;
      this.raw.closed.then(() => { this.ended = true; });
      this.page = undefined;
    }
    this.page ??= await within(PATIENCE * 10, this.raw.page());
  }

  async try(method, params, level, patience = PATIENCE) {
    await this.ready();
    const answer = await within(patience, this.raw.call(method, params, level === 'page' ? this.page.sessionId : undefined))
      .catch((error) => ({ unanswered: String(error) }));
    this.heard.push({ method, level, answer });
    if (answer.unanswered || answer.error?.message.includes('Session with given id')) await this.leave();
    return answer;
  }

  /** What a page that does things has, by the names of parameters and types: commands about it get far. */
  async known() {
    await this.ready();
    const { targetId, sessionId } = this.page;
    if (this.knownOf === sessionId) return this.knowledge;
    const send = (method, params = {}) => within(PATIENCE, this.raw.send(method, params, sessionId)).catch(() => ({}));
    await send('Page.navigate', { url: this.address });
    await send('Runtime.evaluate', { expression: PREPARED, awaitPromise: true });
    for (const domain of ['Page', 'DOM', 'CSS', 'Network', 'Debugger', 'LayerTree', 'Animation']) await send(`${domain}.enable`);
    const { root } = await send('DOM.getDocument', { depth: -1 });
    const { result } = await send('Runtime.evaluate', { expression: 'document.body' });
    const { caches } = await send('CacheStorage.requestCacheNames', { securityOrigin: new URL(this.address).origin });
    const { stream } = await send('Page.printToPDF', { transferMode: 'ReturnAsStream' });
    const { authenticatorId } = await send('WebAuthn.enable').then(() => send('WebAuthn.addVirtualAuthenticator', {
      options: { protocol: 'ctap2', transport: 'usb', hasResidentKey: true },
    }));
    const { windowId } = await send('Browser.getWindowForTarget');
    const script = this.raw.events.find((event) => event.method === 'Debugger.scriptParsed' && event.sessionId === sessionId);
    const layers = this.raw.events.findLast((event) => event.method === 'LayerTree.layerTreeDidChange' && event.params?.layers);
    const layerId = layers?.params.layers.find(({ drawsContent }) => drawsContent)?.layerId;
    const { snapshotId } = layerId ? await send('LayerTree.makeSnapshot', { layerId }) : {};
    await send('Debugger.disable');
    this.knownOf = sessionId;
    this.knowledge = Object.fromEntries(Object.entries({
      targetId, windowId, frameId: targetId, authenticatorId, layerId, snapshotId, handle: stream,
      nodeId: root?.children?.[0]?.children?.[1]?.nodeId,
      objectId: result?.objectId,
      cacheId: caches?.[0]?.cacheId,
      scriptId: script?.params.scriptId,
      origin: new URL(this.address).origin,
      securityOrigin: new URL(this.address).origin,
      databaseName: 'data', objectStoreName: 'store', indexName: '',
      url: this.address,
    }).filter(([, value]) => value !== undefined));
    return this.knowledge;
  }

  /** Takes note of the events, and gives up the page. */
  async leave() {
    this.heard.push(...this.raw.events.splice(0));
    if (this.page && !this.ended) this.raw.call('Target.closeTarget', { targetId: this.page.targetId }).catch(() => {});
    this.page = undefined;
  }
}

for (const engine of ['shell', 'chromium']) {
  const skip = executable(engine) ? false : 'not installed';
  describe(`on ${engine}`, { skip }, () => {
    test('no command of the protocol ends the Chromium, or tells of another lease or changes it', async (context) => {
      const site = await serve();
      const pool = await startPool({
        pool: { lease: 'shared', leases_per_browser: 2, min_size: 2, max_size: 2 },
        chrome: { engine },
        warming: { min_idle: 0 },
      });
      context.after(async () => {
        await pool.stop();
        await site.close();
      });
      const pids = async () => [...new Set((await pool.get('/api/state')).browsers.map(({ pid }) => pid))];
      const other = await witness(pool.url, site);
      const [chromium, ...more] = await pids();
      assert.deepEqual(more, [], 'both leases are in one Chromium');
      const before = await other.state();

      const attacker = new Attacker(pool.url);
      let answered = 0;
      for (const domain of DOMAINS) {
        for (const level of ['root', 'page']) {
          for (const command of domain.commands ?? []) {
            const method = `${domain.domain}.${command.name}`;
            const answer = await attacker.try(method, paramsOf(domain, command, other.foreign), level);
            if (!answer.unanswered) answered += 1;
          }
          await attacker.leave();
          assert.deepEqual(await other.state(), before, `${domain.domain} at its ${level} changes nothing`);
          assert.deepEqual(await pids(), [chromium], `${domain.domain} at its ${level} ends nothing`);
        }
      }
      const told = attacker.heard.filter((message) => JSON.stringify(message).includes(other.word));
      assert.deepEqual(told, [], 'nothing of the other lease is told');
      const total = 2 * DOMAINS.reduce((sum, { commands }) => sum + (commands?.length ?? 0), 0);
      assert.ok(answered > total * 0.9, `${answered} of ${total} were answered`);
    });

    test('no number of a parameter ends the Chromium or another lease', async (context) => {
      const site = await serve();
      const pool = await startPool({
        pool: { lease: 'shared', leases_per_browser: 2, min_size: 2, max_size: 2, lease_timeout: '60m' },
        chrome: { engine },
        warming: { min_idle: 0 },
      });
      context.after(async () => {
        await pool.stop();
        await site.close();
      });
      const pids = async () => [...new Set((await pool.get('/api/state')).browsers.map(({ pid }) => pid))];
      const other = await witness(pool.url, site);
      const [chromium, ...more] = await pids();
      assert.deepEqual(more, [], 'both leases are in one Chromium');
      const before = await other.state();

      const attacker = new Attacker(pool.url, `${site.url}/title.html`);
      const slow = [];
      let tried = 0;
      for (const domain of DOMAINS) {
        for (const command of domain.commands ?? []) {
          const method = `${domain.domain}.${command.name}`;
          const paths = (command.parameters ?? []).flatMap((parameter) => numbersOf(domain, parameter, [parameter.name]));
          for (const level of ['root', 'page']) {
            for (const [path, number] of paths.flatMap((path) => NUMBERS.map((number) => [path, number]))) {
              const params = withNumber(domain, command, path, number, await attacker.known());
              const answer = await attacker.try(method, params, level, PATIENCE * 2);
              tried += 1;
              if (answer.unanswered) slow.push(`${method} ${path.join('.')} ${number}`);
              // Refused for its method: the numbers make no difference.
              if (answer.error?.message.includes('not available in') || answer.error?.code === -32601) break;
            }
            if (paths.length) await assertWell(other, `${method} at its ${level}`);
          }
        }
        assert.deepEqual(await pids(), [chromium], `${domain.domain} ends nothing`);
        await attacker.leave();
      }
      assert.deepEqual(await other.state(), before, 'nothing of the other lease has changed');
      context.diagnostic(`${tried} numbers tried, ${slow.length} unanswered: ${[...new Set(slow)].join(', ')}`);
      assert.ok(tried > 1500, `only ${tried} numbers were tried`);
    });
  });
}
