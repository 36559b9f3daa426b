// Many sessions, some at a time: each leases a browser, looks for what another left behind, leaves a mark
// of its own, takes a screenshot and gives the browser back.
//
//   node tests/clients/load.mjs CDP_URL SITE_URL [--client playwright|puppeteer|puppeteer-24]
//        [--sessions 100] [--concurrency 8] [--context default|new]
//
// One JSON line a session, then a summary; ends with 1 unless every session was good. `--context new` is
// for a plain Chromium, whose default context all its clients share.

import { CLIENTS, session } from './lib/session.mjs';
import { parameters, within } from './lib/steps.mjs';

const options = parameters({
  client: { type: 'string', default: 'playwright' },
  sessions: { type: 'string', default: '100' },
  concurrency: { type: 'string', default: '8' },
  context: { type: 'string', default: 'default' },
});
const { cdp, site } = options;

const client = await CLIENTS[options.client]();
const total = Number(options.sessions);
const took = [];
let next = 0;
let failed = 0;
let leaks = 0;

async function worker() {
  while (next < total) {
    const number = next;
    next += 1;
    const begun = performance.now();
    const line = { session: number, ok: true };
    try {
      Object.assign(line, await within(options.timeout, session(client, { cdp, site, fresh: options.context === 'new', limit: options.timeout })));
    } catch (error) {
      failed += 1;
      const message = String(error?.message ?? error);
      if (message.startsWith('LEAK')) leaks += 1;
      Object.assign(line, { ok: false, error: message });
    }
    line.ms = Math.round(performance.now() - begun);
    took.push(line.ms);
    console.log(JSON.stringify(line));
  }
}

const begun = performance.now();
await Promise.all(Array.from({ length: Number(options.concurrency) }, worker));
took.sort((a, b) => a - b);
const percentile = (p) => took[Math.min(took.length - 1, Math.floor(took.length * p))];
const seconds = Math.round(performance.now() - begun) / 1000;
console.log(JSON.stringify({
  client: options.client, sessions: total, ok: total - failed, failed, leaks, p50: percentile(0.5), p99: percentile(0.99), seconds,
}));
process.exit(failed === 0 ? 0 : 1);
