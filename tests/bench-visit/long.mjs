// A long `pool-cli visit`: thousands of tiny local pages, killed with SIGKILL again and again and started again, while
// the memory of the command and of its browsers is looked at.
//
//   node tests/bench-visit/long.mjs [--pool-cli target/release/pool-cli] [--urls 5000] [--concurrency 4] [--kills 3]
//        [--isolation context] [--engine shell]
//
// Fails unless every URL has one result, and neither memory is more than a tenth and 16 MiB above what it was in the
// first quarter of the longest run.

import { spawn } from 'node:child_process';
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { once } from 'node:events';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

const { values } = parseArgs({
  options: {
    'pool-cli': { type: 'string', default: 'target/release/pool-cli' },
    urls: { type: 'string', default: '5000' },
    concurrency: { type: 'string', default: '4' },
    kills: { type: 'string', default: '3' },
    isolation: { type: 'string', default: 'context' },
    engine: { type: 'string', default: 'shell' },
  },
});
const count = Number(values.urls);
const folder = mkdtempSync(join(tmpdir(), 'browser-pool-long-'));
const [list, out, config] = ['urls.txt', 'results.jsonl', 'pool.toml'].map((name) => join(folder, name));

const site = createServer(({ url }, answer) => {
  answer.setHeader('content-type', 'text/html').end(`<!doctype html><title>${url}</title><p>${url}</p>`);
}).listen(0, '127.0.0.1');
await once(site, 'listening');
const { port } = site.address();
writeFileSync(list, Array.from({ length: count }, (_, i) => `http://127.0.0.1:${port}/${i + 1}\n`).join(''));
writeFileSync(config, `[chrome]\nengine = "${values.engine}"\n`);

/** The resident memory of a process, in MiB; 0 once it is gone. */
function resident(pid) {
  try {
    return Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) / 1024;
  } catch {
    return 0;
  }
}

/** The processes below a command: its reaper, and all those of its browsers. */
function below(command) {
  const parents = new Map();
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name)).map(Number)) {
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, 'utf8');
      parents.set(pid, Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[1]));
    } catch {
      // It has just ended.
    }
  }
  const isBelow = (pid) => parents.has(pid) && (parents.get(pid) === command || isBelow(parents.get(pid)));
  return [...parents.keys()].filter(isBelow);
}

const done = () => {
  try {
    return readFileSync(out, 'utf8').split('\n').length - 1;
  } catch {
    return 0;
  }
};
const mean = (numbers) => numbers.reduce((sum, number) => sum + number, 0) / numbers.length;

/** Runs the command until it ends, or until so many more pages are done: what it and its browsers took, each second. */
async function run(until) {
  const child = spawn(values['pool-cli'], [
    'visit', '--config', config, list, '--out', out, '--concurrency', values.concurrency, '--isolation', values.isolation,
  ], { stdio: ['ignore', 'ignore', 'inherit'], env: { ...process.env, XDG_STATE_HOME: folder } });
  const ended = once(child, 'close');
  let over = false;
  ended.then(() => { over = true; });
  const marks = [];
  while (!over) {
    await Promise.race([ended, new Promise((later) => { setTimeout(later, 1000); })]);
    if (over) break;
    marks.push({ own: resident(child.pid), browsers: below(child.pid).map(resident).reduce((a, b) => a + b, 0) });
    if (done() >= until) child.kill('SIGKILL');
  }
  const [code] = await ended;
  return { code, marks };
}

let failed = false;
try {
  const kills = Number(values.kills);
  let longest = [];
  for (let i = 1; i <= kills + 1; i += 1) {
    const began = performance.now();
    const before = done();
    // Each time somewhere else in a page's life.
    const until = i <= kills ? before + Math.floor((count / (4 * kills)) * (0.5 + Math.random())) : Infinity;
    const { code, marks } = await run(until);
    console.log(`run ${i}: ${done() - before} pages in ${((performance.now() - began) / 1000).toFixed(1)} s, ended with ${code ?? 'SIGKILL'}`);
    if (i > kills && code !== 0) failed = true;
    if (marks.length > longest.length) longest = marks;
  }
  const urls = readFileSync(out, 'utf8').split('\n').filter(Boolean).map((line) => JSON.parse(line).url);
  const distinct = new Set(urls).size;
  console.log(`${urls.length} results of ${distinct} URLs, of ${count}`);
  failed ||= urls.length !== count || distinct !== count;
  const quarter = Math.max(1, Math.floor(longest.length / 4));
  for (const name of ['own', 'browsers']) {
    const sizes = longest.map((mark) => mark[name]);
    // The first seconds are those of the launch.
    const [first, last] = [mean(sizes.slice(2, 2 + quarter)), mean(sizes.slice(-quarter))];
    console.log(`memory, ${name}: ${first.toFixed(1)} MiB in the first quarter, ${last.toFixed(1)} MiB in the last`);
    if (!(last <= first * 1.1 + 16)) failed = true;
  }
} finally {
  site.close();
  rmSync(folder, { recursive: true, force: true });
}
console.log(failed ? 'failed' : 'passed');
process.exit(failed ? 1 : 0);
