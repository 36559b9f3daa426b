// A run of named steps. Each prints one JSON line, `{step, ok, ms, result}` or `{step, ok, ms, error}`,
// and a result holds nothing that differs between two runs (no ids, ports, sizes or times), so that a
// run on Chromium and a run through the pool can be compared line by line.

import { parseArgs } from 'node:util';

/** What every script takes: `SCRIPT CDP_URL SITE_URL [--only a,b] [--dir DIR] [--timeout MS]`. */
export function parameters(extra = {}) {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      // The steps to run; all of them by default.
      only: { type: 'string' },
      // Where files for up- and downloads go; the browser must be allowed to read and write there.
      dir: { type: 'string' },
      // How long one step may take, in milliseconds.
      timeout: { type: 'string', default: '20000' },
      ...extra,
    },
  });
  const [cdp = process.env.CDP_URL, site = process.env.SITE_URL] = positionals;
  if (!cdp || !site) {
    console.error('error: the CDP endpoint and the URL of the test site are wanted\nhint: SCRIPT ws://127.0.0.1:3000/ http://127.0.0.1:8080');
    process.exit(2);
  }
  return { cdp, site, ...values, timeout: Number(values.timeout), only: values.only?.split(',') };
}

// What a step that ran out of time had begun may still fail later; it has been reported by then.
process.on('unhandledRejection', () => {});

export class Steps {
  #only;
  #timeout;
  #failed = 0;

  constructor({ only, timeout }) {
    this.#only = only;
    this.#timeout = timeout;
  }

  /** Whether `--only` leaves this step in. */
  wants(name) {
    return this.#only === undefined || this.#only.includes(name);
  }

  /** Runs one step and prints how it went; never throws, so the steps after it run as well. */
  async run(name, step) {
    const begun = performance.now();
    let outcome;
    try {
      outcome = { ok: true, result: (await within(this.#timeout, step())) ?? null };
    } catch (error) {
      outcome = { ok: false, error: String(error?.message ?? error) };
      this.#failed += 1;
    }
    const { ok, ...rest } = outcome;
    console.log(JSON.stringify({ step: name, ok, ms: Math.round(performance.now() - begun), ...rest }));
  }

  /** Ends the process: 0 if every step went well, else 1. */
  finish() {
    process.exit(this.#failed === 0 ? 0 : 1);
  }
}

export async function within(ms, promise) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(reject, ms, new Error(`not done within ${ms} ms`));
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Throws unless `value` holds; for the conditions that make a step meaningful in the first place. */
export function expect(value, message) {
  if (!value) throw new Error(message);
}

/** Width and height of a PNG, from its header. */
export function pngSize(bytes) {
  const buffer = Buffer.from(bytes);
  expect(buffer.subarray(1, 4).toString() === 'PNG', 'not a PNG');
  return `${buffer.readUInt32BE(16)}x${buffer.readUInt32BE(20)}`;
}

/** A result without what differs between runs: the site's ports, GUIDs and long hexadecimal ids. */
export function stable(value, site) {
  const { origin } = new URL(site);
  const text = JSON.stringify(value)
    .replaceAll(origin, 'SITE')
    .replace(/(localhost|127\.0\.0\.1|\[::1\]):\d+/g, '$1:PORT')
    .replace(/[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/gi, 'GUID')
    .replace(/\b[0-9A-F]{32}\b/g, 'ID');
  return JSON.parse(text);
}
