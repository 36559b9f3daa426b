// Every tool, unmodified, two jobs in a row: on a plain Chromium with a debugging port, through exclusive leases
// and through shared ones; those of agents also by `?session=`, where the second job finds what the first one left.
//
//   node tests/tools/run.mjs [--quick] [--only NAME,...] [--on direct,exclusive,shared,session] [--engine shell]
//        [--json FILE] [--keep]
//
// --quick runs those tools that need little to be installed, through the pool only. Prints a table and, with
// --json, writes what it is made of. Exits with 1 when a job fails that must pass.
// POOL_CLI names the binary (default target/debug/pool-cli). --keep leaves the folders of the jobs.

import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { launch } from '../clients/lib/chromium.mjs';
import { startPool } from '../clients/lib/pool.mjs';
import { serve } from '../site/server.mjs';
import { TOOLS } from './tools.mjs';

const { values } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    only: { type: 'string' },
    on: { type: 'string' },
    engine: { type: 'string', default: 'shell' },
    json: { type: 'string' },
    keep: { type: 'boolean', default: false },
  },
});
const JOBS = [1, 2];
const LIMIT = 120_000;

/** What a job was asked for, as its report must tell it. */
const PROOFS = {
  title: (value) => value === 'A form',
  sent: (value, job) => JSON.parse(value).name === `job ${job}`,
  // Nothing of another job; by a session, what the job before it wrote: a cookie, and a word in the local storage.
  marks: (value, job, place) => value === (place === 'session' && job > 1 ? `mark=${job - 1}${job - 1}` : ''),
  picture: (value) => /^[1-9]\d+x[1-9]\d+$/.test(value),
  file: (value) => value === 1300,
  audit: (value) => value === 'complete',
  trace: (value) => value === 'complete',
};
/** Reasons for which leases end and browsers go when all is well: a long run outlasts a browser that has nothing to do. */
const WELL = {
  leases_ended: ['released', 'client_gone'],
  browser_exits: ['idle_timeout', 'lifetime', 'max_uses', 'surplus'],
};
const REFUSED = /not available in a shared browser lease/;

/** No tool calls home, none keeps anything of its own outside `home`, and none fetches a browser. */
function environment(home) {
  return {
    ...process.env,
    HOME: home,
    TMPDIR: home,
    XDG_CACHE_HOME: join(home, 'cache'),
    XDG_CONFIG_HOME: join(home, 'config'),
    ANONYMIZED_TELEMETRY: 'false',
    BROWSER_USE_CLOUD_SYNC: 'false',
    CHROME_DEVTOOLS_MCP_NO_UPDATE_CHECKS: '1',
    CHROME_DEVTOOLS_MCP_NO_USAGE_STATISTICS: '1',
    CRAWL4_AI_BASE_DIRECTORY: home,
    CRAWLEE_STORAGE_DIR: join(home, 'storage'),
    DO_NOT_TRACK: '1',
    LITELLM_LOCAL_MODEL_COST_MAP: 'True',
    PLAYWRIGHT_SKIP_BROWSER_DOWNLOAD: '1',
    PUPPETEER_SKIP_DOWNLOAD: '1',
    PYTHONDONTWRITEBYTECODE: '1',
    SE_AVOID_STATS: 'true',
    SE_OFFLINE: 'true',
  };
}

/** A Chromium as somebody starts it by hand, a new one for each job: some tools end the browser that they are given. */
async function plainChromium(engine) {
  const flags = [
    ...(engine === 'chromium' ? ['--headless'] : []),
    ...(process.getuid?.() === 0 ? ['--no-sandbox'] : []),
  ];
  let browser;
  return {
    begin: async () => {
      browser = await launch(engine, ['about:blank'], flags);
      // It listens before it has a page.
      const list = `${new URL(browser.url.replace('ws:', 'http:')).origin}/json/list`;
      while ((await fetch(list).then((answer) => answer.json())).length === 0) await delay(20);
      return browser.url;
    },
    end: () => browser.close(),
    faults: async () => [],
    close: async () => {},
  };
}

/**
 * A pool with one kind of lease; by a `session` its jobs share one. What is asked of a job holds for the pool too: it
 * gets its browser back, whole, once a lease has ended.
 */
async function pooled(lease, engine, directory, session) {
  const pool = await startPool({
    pool: { lease, min_size: 1, max_size: 2 },
    chrome: { engine, directories: lease === 'shared' ? [directory] : [] },
  });
  const http = pool.url.replace('ws:', 'http:');
  return {
    begin: async () => (session ? `${pool.url}?session=${session}` : pool.url),
    end: async (job) => {
      if (session) {
        const held = await pool.get('/sessions');
        if (held.length !== 1) throw new Error(`its session has ${held.length} leases`);
        if (job !== JOBS.at(-1)) return;
        await fetch(`${http}browser_pools/default/release`, {
          method: 'POST',
          headers: { 'content-type': 'application/json' },
          body: JSON.stringify({ session_id: held[0].id }),
        });
      }
      const deadline = performance.now() + 5_000;
      while ((await pool.get('/sessions')).length > 0) {
        if (performance.now() > deadline) throw new Error('its lease was not given back within 5 s');
        await delay(50);
      }
    },
    /** What has gone wrong so far, by the pool's own count. */
    faults: async () => {
      const text = await fetch(`${http}metrics`).then((answer) => answer.text());
      const counts = text.matchAll(/^browserpool_(leases_ended|browser_exits)_total\{.*reason="(\w+)"\} (\d+)$/gm);
      return [...counts]
        .filter(([, what, reason, count]) => Number(count) > 0 && !WELL[what].includes(reason))
        .map(([, what, reason, count]) => `${what} ${reason}: ${count}`);
    },
    close: () => pool.stop(),
  };
}

/** Runs one job: `{ ok, ms, did, error }`. */
async function run(tool, { url, job, folder, site }) {
  mkdirSync(folder, { recursive: true });
  const { host, search } = new URL(url);
  const begun = performance.now();
  const [command, ...parameters] = tool.program;
  const child = spawn(command, parameters, {
    cwd: folder,
    detached: true,
    env: {
      ...environment(folder),
      CDP_WS: url,
      CDP_HTTP: `http://${host}/${search}`,
      SITE: site.url,
      JOB: String(job),
      FOLDER: folder,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (data) => { output = (output + data).slice(-20_000); });
  const killed = setTimeout(() => process.kill(-child.pid, 'SIGKILL'), LIMIT);
  const code = await new Promise((resolve) => {
    child.on('error', resolve);
    child.on('close', (status, signal) => resolve(status ?? signal));
  });
  clearTimeout(killed);
  const ms = Math.round(performance.now() - begun);
  writeFileSync(join(folder, 'output.txt'), output);
  if (code !== 0) return { ok: false, ms, error: `it ended with ${code}: ${complaint(output)}` };

  let did;
  try {
    did = JSON.parse(readFileSync(join(folder, 'report.json'), 'utf8'));
  } catch {
    return { ok: false, ms, error: `it reported nothing: ${complaint(output)}` };
  }
  return { ok: true, ms, did };
}

/** The line of a program's output that says what went wrong: of a Node program the one above its stack, of a Python program the last. */
function complaint(output) {
  const lines = output.trim().split('\n').map((line) => line.trim());
  const error = lines.findLast((line) => /^[\w.\[\] ]*(Error|Exception|Found)\b.*: /.test(line));
  return (error ?? lines.slice(-3).join(' | ')).slice(0, 500);
}

/** The faults in what a job did; none if it did all that it must. */
function judge(tool, place, job, { did, error }, site) {
  if (error) return [error];
  const refused = place === 'shared' ? tool.refused ?? [] : [];
  const faults = [];
  for (const proof of tool.proves) {
    if (refused.includes(proof)) {
      if (!REFUSED.test(did.refused?.[proof] ?? '')) faults.push(`${proof} was not refused as it should be: ${JSON.stringify(did.refused)}`);
    } else if (did[proof] === undefined || !PROOFS[proof](did[proof], job, place)) {
      faults.push(`${proof}: ${JSON.stringify(did.refused?.[proof] ?? did[proof])}`);
    }
  }
  if (!site.log.read({ path: '/form.html' }).some(({ query }) => query === `?job=${job}`)) faults.push('the site was not asked');
  return faults;
}

const chosen = TOOLS.filter(({ name, quick }) =>
  (values.only ? values.only.split(',').includes(name) : quick || !values.quick));
const scratch = mkdtempSync(join(tmpdir(), 'browser-pool-tools-'));
const site = await serve();
const places = {};
const results = [];
try {
  const on = values.on ?? (values.quick ? 'exclusive,shared' : 'direct,exclusive,shared,session');
  for (const name of on.split(',')) {
    if (name === 'direct') places[name] = await plainChromium(values.engine);
    else if (name === 'session') places[name] = await pooled('exclusive', values.engine, scratch, 'agent');
    else places[name] = await pooled(name, values.engine, scratch);
  }
  for (const tool of chosen) {
    for (const [name, place] of Object.entries(places)) {
      if (name === 'session' && !tool.agent) continue;
      const known = await place.faults();
      for (const job of JOBS) {
        site.log.clear();
        const folder = join(scratch, tool.name.replaceAll('/', '-'), name, String(job));
        const url = await place.begin();
        const outcome = await run(tool, { url, job, folder, site });
        const faults = judge(tool, name, job, outcome, site);
        await place.end(job).catch((error) => faults.push(error.message));
        faults.push(...(await place.faults()).filter((fault) => !known.includes(fault)));
        results.push({ tool: tool.name, version: tool.version, on: name, job, ok: faults.length === 0, ms: outcome.ms, did: outcome.did, faults });
        const mark = faults.length === 0 ? 'ok' : 'FAILED';
        console.error(`${mark.padEnd(6)} ${tool.name} on ${name}, job ${job}, ${outcome.ms} ms ${faults.join('; ')}`);
      }
    }
  }
} finally {
  for (const place of Object.values(places)) await place.close();
  await site.close();
  if (values.keep) console.error(`the folders of the jobs are in ${scratch}`);
  else rmSync(scratch, { recursive: true, force: true });
}

const names = Object.keys(places);
console.log(`\n${'tool'.padEnd(26)}${'version'.padEnd(10)}${names.map((name) => name.padEnd(26)).join('')}`);
for (const { name, version } of chosen) {
  const cells = names.map((place) => {
    const jobs = results.filter(({ tool, on }) => tool === name && on === place);
    return jobs.map(({ ok, ms }) => `${ok ? 'ok' : 'FAILED'} ${(ms / 1000).toFixed(1)} s`).join(', ').padEnd(26);
  });
  console.log(`${name.padEnd(26)}${String(version).padEnd(10)}${cells.join('')}`.trimEnd());
}
const failed = results.filter(({ ok }) => !ok);
if (values.json) writeFileSync(values.json, `${JSON.stringify(results, null, 1)}\n`);
console.log(`\n${results.length - failed.length} passed, ${failed.length} failed`);
process.exit(results.length > 0 && failed.length === 0 ? 0 : 1);
