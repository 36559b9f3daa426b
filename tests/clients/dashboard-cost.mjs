// What open dashboards cost: a lease taken and given back with ten of them open and with none, by turns in
// one run, and the CPU of the pool with one open and nobody else there.
//
//   node tests/clients/dashboard-cost.mjs [--rounds 12] [--leases 25] [--seconds 30]
//
// Ends with 1 where a lease takes more than 1.1 times as long, or the idle pool more than 2 % of one core.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import WebSocket from 'ws';
import { startPool } from './lib/pool.mjs';

const MOST_RATIO = 1.1;
const MOST_CPU = 2;

const { values } = parseArgs({
  options: {
    rounds: { type: 'string', default: '12' },
    leases: { type: 'string', default: '25' },
    seconds: { type: 'string', default: '30' },
    watch: { type: 'string' },
  },
});

/** In a process of its own, as a person's browser is: reads so many streams to the end. */
if (values.watch) {
  const [url, count] = values.watch.split(' ');
  await Promise.all(Array.from({ length: Number(count) }, async () => {
    await fetch(`${url}api/history`).then((answer) => answer.arrayBuffer());
    for await (const _ of (await fetch(`${url}api/stream`)).body);
  }));
  process.exit();
}

async function open(dashboards) {
  const url = pool.url.replace('ws:', 'http:');
  const child = spawn(process.execPath, [new URL(import.meta.url).pathname, '--watch', `${url} ${dashboards}`], { stdio: 'ignore' });
  // Node has started and all have their first state by then.
  await delay(2_000);
  return async () => { child.kill(); await once(child, 'exit'); };
}

/** The milliseconds of one lease, from its request to the end of its connection. */
async function lease() {
  const begun = performance.now();
  const client = new WebSocket(pool.url, { perMessageDeflate: false });
  await once(client, 'open');
  client.close();
  await once(client, 'close');
  return performance.now() - begun;
}

/** Milliseconds of CPU that the pool's process has used. */
function cpu() {
  const fields = readFileSync(`/proc/${pool.pid}/stat`, 'utf8').split(') ')[1].split(' ');
  return (Number(fields[11]) + Number(fields[12])) * 10;
}

const median = (numbers) => [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)];

const pool = await startPool({ pool: { min_size: 4, max_size: 4, max_use_count: 100_000 } });
const took = { none: [], ten: [] };
let percent;
try {
  while ((await pool.get('/api/state')).load.idle < 4) await delay(100);
  for (let round = 0; round < Number(values.rounds); round += 1) {
    // Each comes first in half of the rounds, so that neither always meets a warmer machine.
    for (const which of round % 2 === 0 ? ['none', 'ten'] : ['ten', 'none']) {
      const close = which === 'ten' ? await open(10) : () => delay(2_000);
      for (let number = 0; number < Number(values.leases); number += 1) {
        took[which].push(await lease());
        // Its browser is clean again by then, so that none waits.
        await delay(100);
      }
      await close();
    }
  }
  const close = await open(1);
  const [before, begun] = [cpu(), performance.now()];
  await delay(Number(values.seconds) * 1000);
  percent = ((cpu() - before) / (performance.now() - begun)) * 100;
  await close();
} finally {
  await pool.stop();
}

const [none, ten] = [median(took.none), median(took.ten)];
const ratio = ten / none;
console.log(`acquire and release, median of ${took.none.length}: ${none.toFixed(2)} ms with no dashboard open, ${ten.toFixed(2)} ms with ten: ${ratio.toFixed(3)} x (at most ${MOST_RATIO})`);
console.log(`CPU of the idle pool with one open: ${percent.toFixed(2)} % of a core over ${values.seconds} s (at most ${MOST_CPU})`);
console.log(JSON.stringify({ bench: 'dashboard', none_ms: none, ten_ms: ten, ratio, idle_cpu_percent: percent }));
process.exit(ratio <= MOST_RATIO && percent <= MOST_CPU ? 0 : 1);
