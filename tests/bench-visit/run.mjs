// `pool-cli visit` beside puppeteer-cluster and Crawlee's browser-pool: the same 200 local pages, the same
// Chromium, the same condition, one after the other in one run.
//
//   node tests/bench-visit/run.mjs [--pool-cli target/release/pool-cli] [--urls 200] [--concurrency 4]
//        [--rounds 3] [--engines shell,chromium] [--only pool-cli,puppeteer-cluster,...] [--check]
//
// Each `--isolation` of ours stands beside what it replaces: `context`, the default, and `wiped` beside a context for
// every page, `none` beside puppeteer-cluster's CONCURRENCY_PAGE, where all pages share one. Pages are isolated from each other
// but in those two, and say so in their titles.
//
// A time is that of the whole command, from its start to its exit, with what it launches. For the peers
// `work` leaves out the start of Node and its imports. Prints a table for each engine, and at the end one
// JSON line for each figure. With `--check` a ratio above its bound ends it with 1.

import { spawn } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { executable } from '../clients/lib/chromium.mjs';
import { serve } from '../site/server.mjs';

const { values } = parseArgs({
  options: {
    'pool-cli': { type: 'string', default: 'target/release/pool-cli' },
    urls: { type: 'string', default: '200' },
    concurrency: { type: 'string', default: '4' },
    rounds: { type: 'string', default: '3' },
    engines: { type: 'string', default: 'shell,chromium' },
    only: { type: 'string' },
    check: { type: 'boolean', default: false },
  },
});
const count = Number(values.urls);
const here = new URL('.', import.meta.url).pathname;
const folder = mkdtempSync(join(tmpdir(), 'browser-pool-bench-'));
const list = join(folder, 'urls.txt');
const out = join(folder, 'results.jsonl');

const peer = (script, ...more) => (engine) => [
  process.execPath, [`${here}${script}`, list, '--out', out, '--engine', engine, '--concurrency', values.concurrency, ...more],
];
const own = (isolation, more = '') => (engine) => {
  const config = join(folder, `${engine}.toml`);
  // Puppeteer's size of a page, since a larger one takes longer to draw.
  const size = '[warming]\nviewport = [800, 600]\n';
  writeFileSync(config, `[chrome]\nengine = "${engine}"\n${size}${more}`);
  return [values['pool-cli'], [
    'visit', '--config', config, list, '--out', out, '--concurrency', values.concurrency, '--isolation', isolation,
  ]];
};
const CONTENDERS = {
  'pool-cli': own('context'),
  'pool-cli guarded': own('context', '[egress]\nprivate = "deny"\nallow = ["127.0.0.1"]\n'),
  'pool-cli wiped': own('wiped'),
  'pool-cli none': own('none'),
  'puppeteer-cluster': peer('puppeteer-cluster.mjs'),
  'puppeteer-cluster page': peer('puppeteer-cluster.mjs', '--model', 'page'),
  'crawlee (puppeteer)': peer('crawlee.mjs'),
  'crawlee (playwright)': peer('crawlee.mjs', '--library', 'playwright'),
};

/** Those whose pages share a context, so that they find what others left. */
const SHARING = ['pool-cli none', 'puppeteer-cluster page'];

/** What each of ours is measured against, and the part of its time that it may take, where there is a bound. */
const BOUNDS = {
  'pool-cli': ['puppeteer-cluster', 0.72],
  'pool-cli guarded': ['pool-cli'],
  'pool-cli wiped': ['puppeteer-cluster', 0.55],
  'pool-cli none': ['puppeteer-cluster page', 0.45],
};

/** Runs one contender once: `{ ms, work }`, after its results have been checked. */
async function measure(name, engine) {
  rmSync(out, { force: true });
  const [command, parameters] = CONTENDERS[name](engine);
  const begun = performance.now();
  const child = spawn(command, parameters, { stdio: ['ignore', 'pipe', 'pipe'] });
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (data) => { stdout += data; });
  child.stderr.on('data', (data) => { stderr += data; });
  const code = await new Promise((resolve, reject) => child.on('error', reject).on('close', resolve));
  const ms = performance.now() - begun;
  if (code !== 0 || !existsSync(out)) throw new Error(`${name} on ${engine} ended with ${code}\n${stderr}`);
  check(name, readFileSync(out, 'utf8'));
  const work = /"work_ms":(\d+)/.exec(stdout);
  return { ms, work: work ? Number(work[1]) : ms };
}

/** Every page was visited once, was found, and saw nothing of another visit, where it may not (its title tells). */
function check(name, text) {
  const titles = new Map();
  for (const line of text.split('\n').filter(Boolean)) {
    const { url, status, title, error } = JSON.parse(line);
    if (status !== 200 || error) throw new Error(`${name}: ${line}`);
    titles.set(url.split('/').pop(), title);
  }
  for (let n = 1; n <= count; n += 1) {
    const title = titles.get(String(n));
    if (title?.startsWith('LEAK') && SHARING.includes(name)) continue;
    if (title !== `Visit ${n}`) throw new Error(`${name}: visit ${n} has the title ${title}`);
  }
}

const median = (numbers) => [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)];

const site = await serve();
writeFileSync(list, Array.from({ length: count }, (_, i) => `${site.url}/visit/${i + 1}\n`).join(''));
const names = Object.keys(CONTENDERS).filter((name) => !values.only || values.only.split(',').includes(name));
const figures = [];
let failed = false;
try {
  for (const engine of values.engines.split(',').filter(executable)) {
    const runs = new Map(names.map((name) => [name, []]));
    for (let round = 0; round < Number(values.rounds); round += 1) {
      // Each round begins with another contender, so that none always runs on a warm or a tired machine.
      for (let i = 0; i < names.length; i += 1) {
        const name = names[(round + i) % names.length];
        runs.get(name).push(await measure(name, engine));
      }
    }
    console.log(`\n${engine}: ${count} pages, ${values.concurrency} at a time, median of ${values.rounds}`);
    console.log(`${''.padEnd(22)}${'s'.padStart(8)}${'work s'.padStart(8)}${'pages/s'.padStart(9)}   beside`);
    const middle = (name, of) => median(runs.get(name).map((time) => time[of]));
    for (const name of runs.keys()) {
      const [ms, work] = [middle(name, 'ms'), middle(name, 'work')];
      const [against, bound] = BOUNDS[name] ?? [];
      const measured = against !== undefined && runs.has(against);
      const [ratio, ofWork] = measured ? [ms / middle(against, 'ms'), ms / middle(against, 'work')] : [];
      const beside = measured ? `   ${ratio.toFixed(2)} x ${against}${bound ? ` (bound ${bound})` : ''}, ${ofWork.toFixed(2)} x its work` : '';
      console.log(
        name.padEnd(22) + (ms / 1000).toFixed(2).padStart(8) + (work / 1000).toFixed(2).padStart(8) +
        ((count / ms) * 1000).toFixed(1).padStart(9) + beside,
      );
      failed ||= measured && ratio > (bound ?? Infinity);
      figures.push({ bench: 'visit', engine, contender: name, ms: Math.round(ms), work_ms: Math.round(work), against, bound, ratio, ratio_of_work: ofWork });
    }
  }
} finally {
  await site.close();
  rmSync(folder, { recursive: true, force: true });
}
console.log('');
for (const figure of figures) console.log(JSON.stringify(figure));
if (failed && values.check) process.exitCode = 1;
