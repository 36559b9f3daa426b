// Every command of the protocol, sent by the client of a shared lease, at its root and in a page, with the ids
// of another lease wherever a command takes one: the other lease learns and suffers nothing, and nothing of it
// is told.
//
//   node --test tests/clients/sweep.test.mjs
//
// POOL_CLI names the binary (default target/debug/pool-cli).

import assert from 'node:assert/strict';
import { randomUUID } from 'node:crypto';
import { createRequire } from 'node:module';
import { describe, test } from 'node:test';
import { serve } from '../site/server.mjs';
import { executable } from './lib/chromium.mjs';
import { startPool } from './lib/pool.mjs';
import { within } from './lib/steps.mjs';
import { Raw } from './raw.mjs';

const require = createRequire(import.meta.url);
const DOMAINS = ['browser_protocol', 'js_protocol'].flatMap((name) => require(`devtools-protocol/json/${name}.json`).domains);

/** What a paused page or a page that is gone leaves unanswered is given up, in milliseconds. */
const PATIENCE = 1500;

/** Params for a command: those that it requires, and those that could name what is another's. */
function paramsOf(domain, command, foreign) {
  const chosen = (command.parameters ?? []).filter(({ name, optional }) => !optional || name in foreign);
  return Object.fromEntries(chosen.map((parameter) => [parameter.name, valueOf(domain, parameter, foreign)]));
}

function valueOf(domain, type, foreign, depth = 0) {
  if (type.name in foreign) return foreign[type.name];
  if (type.$ref) {
    const [name, owner] = type.$ref.split('.').reverse();
    const home = owner ? DOMAINS.find((candidate) => candidate.domain === owner) : domain;
    const target = home.types.find(({ id }) => id === name);
    return valueOf(home, { ...target, name: undefined }, foreign, depth + 1);
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

/** The lease that must notice nothing: its marks all bear a word that nobody else knows. */
async function witness(url, site) {
  const word = randomUUID();
  const raw = await Raw.connect(url);
  const { targetId, sessionId } = await raw.page(`${site.url}/title.html?${word}`);
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
  await evaluate(`new Promise((resolve) => { if (document.readyState === 'complete') resolve(); else onload = resolve; })`);
  const foreign = {
    targetId, sessionId, browserContextId: defaultBrowserContextId, contextId: defaultBrowserContextId, windowId, frameId: targetId,
  };
  return { word, raw, state, foreign };
}

/** A client that gets itself a new lease or a new page when a command has cost it the last one. */
class Attacker {
  constructor(url) {
    this.url = url;
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

  async try(method, params, level) {
    await this.ready();
    const answer = await within(PATIENCE, this.raw.call(method, params, level === 'page' ? this.page.sessionId : undefined))
      .catch((error) => ({ unanswered: String(error) }));
    this.heard.push({ method, level, answer });
    if (answer.unanswered || answer.error?.message.includes('Session with given id')) await this.leave();
    return answer;
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
  });
}
