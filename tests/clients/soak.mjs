// Clients, bursts and faults for a while, and then the question what is left.
//
//   node tests/clients/soak.mjs [--minutes 2] [--seed 1] [--lease exclusive]
//
// Sessions of Playwright, Puppeteer and chromiumoxide run all the time. Every few seconds something breaks, drawn from the
// seed: a Chromium or one of its renderers is killed, a Chromium is frozen for a while, a client is killed,
// more clients come at once than the queue takes; now and then the pool itself is killed and started again.
// Everything is judged from outside: /proc, the file system, and what the clients saw.
//
// It prints a report and ends with 1 unless all that must be zero is zero, and what must hold holds.

import { spawn } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { serve } from '../site/server.mjs';
import { launch } from './lib/chromium.mjs';
import { freePort, startPool } from './lib/pool.mjs';
import { descendants, processes } from './lib/processes.mjs';
import { CLIENTS, session } from './lib/session.mjs';
import { within } from './lib/steps.mjs';
import { Raw } from './raw.mjs';

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '2' },
    seed: { type: 'string', default: '1' },
    lease: { type: 'string', default: 'exclusive' },
  },
});
const DURATION = Number(values.minutes) * 60_000;
const POOL_LIVES = Math.max(60_000, DURATION / 6);
const random = mulberry(Number(values.seed));
const pick = (list) => list[Math.floor(random() * list.length)];

const report = {
  sessions: 0, good: 0, refused: 0, refused_in_bursts: 0, hit_by_fault: 0, failed_without_fault: 0, leaks: 0, faults: {},
  slow_browser_recoveries: 0, slow_pool_recoveries: 0, orphans: 0, zombies: 0, longest_zombie_ms: { pool: 0, browser: 0, zygote: 0 }, litter: 0, panics: 0,
  canary_killed: 0, held_at_the_end: 0, exit_code: null,
};
const acquired = [];
const failures = [];
const recoveries = { browser: [], pool: [] };
const samples = [];
/** When something was broken: `[from, to]`; a session that overlaps one of these may fail. */
const broken = [];

const site = await serve();
const canary = await launch('shell');
const directory = mkdtempSync(join(tmpdir(), 'browser-pool-soak-'));
const scratch = join(directory, 'tmp');
mkdirSync(scratch);
const port = await freePort();
const shared = new Set(readdirSync('/dev/shm'));
const settings = { pool: { lease: values.lease, min_size: 2, max_size: 3, max_waiting: 20, max_use_count: 50 } };
const open = () => startPool(settings, { port, directory, env: { TMPDIR: scratch } });
let pool = await open();
let logs = '';
// Should the soak itself fail, nothing of it stays behind.
for (const name of ['SIGINT', 'SIGTERM']) process.on(name, () => process.exit(1));
process.on('exit', () => [{ pid: pool.pid }, { pid: -canary.pid }].forEach((process) => signal(process, 'SIGKILL')));

const begun = performance.now();
const running = () => performance.now() - begun < DURATION;
const clients = await Promise.all(Object.values(CLIENTS).map((load) => load()));
/** One user after the other. */
async function useIt() {
  while (running()) {
    await delay(random() * 500);
    const from = performance.now();
    report.sessions += 1;
    try {
      const times = await within(60_000, session(pick(clients), { cdp: pool.url, site: site.url, limit: 20_000 }));
      acquired.push(times.connect);
      report.good += 1;
    } catch (error) {
      const message = String(error?.message ?? error);
      const to = performance.now();
      if (message.startsWith('LEAK')) report.leaks += 1;
      if (/\b429\b/.test(message)) report.refused += 1;
      else if (broken.some(([start, end]) => start < to && from < end)) report.hit_by_fault += 1;
      else {
        report.failed_without_fault += 1;
        failures.push(`${Math.round((from - begun) / 1000)} s: ${message.split('\n')[0]}`);
      }
    }
  }
}

/** One fault after the other, each with its recovery. */
async function breakIt() {
  let poolBorn = performance.now();
  while (running()) {
    await delay(1500 + random() * 3000);
    const [name, fault] = performance.now() - poolBorn > POOL_LIVES ? ['pool_killed', killPool] : pick(Object.entries(FAULTS));
    report.faults[name] = (report.faults[name] ?? 0) + 1;
    if (fault === killPool) poolBorn = performance.now();
    const window = [performance.now(), Infinity];
    if (!HARMLESS.has(name)) broken.push(window);
    await fault();
    // What happened to a session shows only when it talks to its browser again.
    window[1] = performance.now() + 2000;
  }
}

const FAULTS = {
  browser_killed: () => hitBrowser('SIGKILL'),
  async browser_frozen() {
    const victim = pick(browsers());
    if (!victim) return;
    signal(victim, 'SIGSTOP');
    await delay(2000 + random() * 3000);
    signal(victim, 'SIGCONT');
    await recovered('browser', 5000);
  },
  async renderer_killed() {
    const victim = pick(descendants(pool.pid).filter(({ command }) => command.includes('--type=renderer')));
    if (victim) signal(victim, 'SIGKILL');
    await delay(500);
  },
  async client_killed() {
    const child = spawn(process.execPath, [new URL('raw.mjs', import.meta.url).pathname, pool.url], { stdio: ['pipe', 'ignore', 'ignore'] });
    child.on('error', () => {});
    await delay(random() * 2000);
    child.kill('SIGKILL');
  },
  async burst() {
    // Who gets a browser leaves it at once, so that a queue of the allowed length is served in time.
    const all = await Promise.allSettled(Array.from({ length: 60 }, async () => (await Raw.connect(pool.url)).drop()));
    report.refused_in_bursts += all.filter(({ reason }) => reason?.status === 429).length;
  },
};
/** Faults of one client, which no other may feel. */
const HARMLESS = new Set(['client_killed', 'burst']);

async function hitBrowser(name) {
  const victim = pick(browsers());
  if (!victim) return;
  signal(victim, name);
  await recovered('browser', 5000);
}

async function killPool() {
  logs += pool.log();
  await pool.kill();
  const died = performance.now();
  // P1: two seconds after the pool's death nothing of it lives.
  await delay(2000);
  report.orphans += ours().length;
  pool = await open();
  await recovered('pool', 10_000, died + 2000);
}

/** Waits until a fresh lease has a page, and notes how long that took. */
async function recovered(kind, limit, since = performance.now()) {
  for (;;) {
    try {
      const raw = await Raw.connect(pool.url);
      await within(5000, raw.page(`${site.url}/title.html`)).finally(() => raw.close());
      break;
    } catch {
      if (performance.now() - since > 60_000) break;
      await delay(50);
    }
  }
  const took = performance.now() - since;
  recoveries[kind].push(took);
  if (took > limit) report[`slow_${kind}_recoveries`] += 1;
}

/**
 * How long a zombie may last, by who must reap it, in milliseconds: one second.
 *
 * A renderer is reaped by its Chromium's zygote, once that is asked to. A renderer that has died before that leaves
 * nothing to wake the zygote, which then sleeps until it is asked something else, at most two seconds (`ppoll` in
 * content/zygote/zygote_linux.cc). No pool can reap in its place; so it has these two seconds more, and no others.
 */
const REAPED_WITHIN = { pool: 1000, browser: 1000, zygote: 3000 };

/** Zombies and the growth of the pool, twice a second. */
async function watchIt() {
  let seen = new Map();
  while (running()) {
    const now = performance.now();
    const all = processes();
    const byPid = new Map(all.map((process) => [process.pid, process]));
    // A Chromium that a fault has frozen reaps nothing, and asks its zygotes for nothing.
    const dead = descendants(pool.pid, all).filter(({ parent, state }) => state === 'Z' && !isFrozen(parent, byPid));
    const before = seen;
    seen = new Map();
    for (const { pid, started, parent } of dead) {
      const name = `${pid} of tick ${started}`;
      const zombie = before.get(name) ?? { since: now, told: false };
      const owner = byPid.get(parent)?.command ?? '';
      const whose = parent === pool.pid ? 'pool' : owner.includes('--type=zygote') ? 'zygote' : 'browser';
      const lasts = now - zombie.since;
      report.longest_zombie_ms[whose] = Math.max(report.longest_zombie_ms[whose], Math.round(lasts));
      if (lasts > REAPED_WITHIN[whose] && !zombie.told) {
        zombie.told = true;
        report.zombies += 1;
        failures.push(`${Math.round((now - begun) / 1000)} s: zombie ${name}, of ${owner.slice(0, 200)}`);
      }
      seen.set(name, zombie);
    }
    try {
      const resident = Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pool.pid}/status`, 'utf8'))[1]);
      samples.push({ pool: pool.pid, files: readdirSync(`/proc/${pool.pid}/fd`).length, kib: resident });
    } catch {
      // The pool is being replaced.
    }
    await delay(500);
  }
}

/** Whether a process, or one between it and the pool, is stopped. */
function isFrozen(pid, byPid) {
  const process = byPid.get(pid);
  return process !== undefined && pid !== pool.pid && (process.state === 'T' || isFrozen(process.parent, byPid));
}

async function judge() {
  // Nobody uses it any more: everything must be at rest, without being asked to.
  for (let tries = 0; tries < 200; tries += 1) {
    report.held_at_the_end = (await pool.get('/pressure')).pressure.running;
    if (report.held_at_the_end === 0) break;
    await delay(50);
  }
  if (report.held_at_the_end > 0) failures.push(`held at the end: ${JSON.stringify(await pool.get('/sessions'))}`);
  report.exit_code = await pool.stop();
  logs += pool.log();
  report.orphans += ours().length;
  report.panics = (logs.match(/panicked at/g) ?? []).length;
  const left = [...readdirSync(scratch), ...readdirSync('/dev/shm').filter((name) => !shared.has(name) && /chrom/i.test(name))];
  report.litter = left.length;
  report.canary_killed = processes().some(({ pid }) => pid === canary.pid) ? 0 : 1;
  await canary.close();
  await site.close();
  rmSync(directory, { recursive: true, force: true });

  const tried = report.good + report.failed_without_fault;
  const success = tried ? report.good / tried : 0;
  console.log(JSON.stringify({
    ...report, success_without_fault: success, acquire_ms: percentiles(acquired),
    recovery_ms: { browser: percentiles(recoveries.browser), pool: percentiles(recoveries.pool) }, growth: growth(), failures: failures.slice(0, 20), left,
  }, null, 2));
  const zero = ['leaks', 'slow_browser_recoveries', 'slow_pool_recoveries', 'orphans', 'zombies', 'litter', 'panics', 'canary_killed', 'held_at_the_end', 'exit_code'];
  const wrong = zero.filter((name) => report[name] !== 0);
  if (success < 0.999) wrong.push('success_without_fault');
  console.log(wrong.length === 0 ? 'all zeros' : `not as it must be: ${wrong.join(', ')}`);
  process.exit(wrong.length === 0 ? 0 : 1);
}

/** The main processes of the pool's Chromiums. */
function browsers() {
  return descendants(pool.pid).filter(({ command }) => command.includes('--remote-debugging-pipe') && !command.includes('--type='));
}
/** Every process that bears the state directory in its command line: with or without a pool above it. */
function ours() {
  return processes().filter(({ command }) => command.includes(directory));
}
function signal({ pid }, name) {
  try {
    process.kill(pid, name);
  } catch (error) {
    if (error.code !== 'ESRCH') throw error;
  }
}
function percentiles(list) {
  const sorted = [...list].sort((a, b) => a - b);
  const at = (p) => Math.round(sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * p))] ?? 0);
  return { n: sorted.length, p50: at(0.5), p99: at(0.99), max: at(1) };
}
/** Files and memory of the pool that lived longest: the mean of its first and of its last third. */
function growth() {
  const lives = {};
  for (const sample of samples) (lives[sample.pool] ??= []).push(sample);
  const longest = Object.values(lives).sort((a, b) => b.length - a.length)[0] ?? [];
  const third = Math.floor(longest.length / 3);
  const mean = (part, key) => Math.round(part.reduce((sum, sample) => sum + sample[key], 0) / part.length);
  const [first, last] = [longest.slice(0, third), longest.slice(-third)];
  if (third === 0) return null;
  return { files: [mean(first, 'files'), mean(last, 'files')], kib: [mean(first, 'kib'), mean(last, 'kib')] };
}
/** A small generator with a seed: the same faults in the same order for the same number. */
function mulberry(seed) {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

await Promise.all([...Array.from({ length: 5 }, useIt), breakIt(), watchIt()]);
await judge();
