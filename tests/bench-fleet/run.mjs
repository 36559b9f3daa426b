// Leases of another node beside leases of one's own: two nodes on one machine, one of them a gateway without browsers.
//
//   node tests/bench-fleet/run.mjs [--pool-cli target/release/pool-cli] [--rounds 100] [--engine shell]
//
// Prints, at the node that has the browsers and through the gateway in turn: the median time to a connected lease, the
// median round trips of a command that only the browser answers and of one that a page does, as `pool-cli bench` has
// them, and how fast large answers arrive. Where HAProxy is installed, it stands in the gateway's place as well and
// passes on TCP: that is what any process in between costs.

import assert from 'node:assert/strict';
import { execFileSync, spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { on, once } from 'node:events';
import { createConnection } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { parseArgs } from 'node:util';
import { WebSocket } from '../clients/node_modules/ws/wrapper.mjs';

const { values } = parseArgs({
  options: {
    'pool-cli': { type: 'string', default: 'target/release/pool-cli' },
    rounds: { type: 'string', default: '100' },
    engine: { type: 'string', default: 'shell' },
  },
});
process.env.POOL_CLI = values['pool-cli'];
const { freePort, startPool } = await import('../clients/lib/pool.mjs');
const rounds = Number(values.rounds);

/** Commands in a row, so that a machine that changes its speed changes it for both. */
const COMMANDS = 100;
/** Bytes of a large answer. */
const LARGE = 8 * 2 ** 20;

execFileSync('scripts/install-nats', ['current']);
const store = mkdtempSync(join(tmpdir(), 'browser-pool-bench-'));
const natsPort = await freePort();
const nats = spawn('target/nats/current/nats-server', ['-a', '127.0.0.1', '-p', String(natsPort), '-js', '-sd', store], {
  stdio: 'ignore',
});
const fleet = (node) => ({ nats: [`nats://127.0.0.1:${natsPort}`], node, secret: { env: 'FLEET_SECRET' } });
const env = { FLEET_SECRET: 'a secret of this benchmark' };
const chrome = { engine: values.engine };
const alone = await startPool({ pool: { min_size: 3, max_size: 3 }, chrome });
const home = await startPool({ pool: { min_size: 3, max_size: 3 }, chrome, fleet: fleet('home') }, { env });
const front = await startPool({ pool: { min_size: 0, max_size: 0 }, fleet: fleet('front') }, { env });
const pools = [alone, home, front];
const listens = async (port) => {
  const socket = createConnection(port, '127.0.0.1');
  const answers = await once(socket, 'connect').then(() => true, () => false);
  socket.destroy();
  return answers;
};
const haproxy = await (async () => {
  const port = await freePort();
  const file = join(store, 'haproxy.cfg');
  writeFileSync(file, `defaults
  mode tcp
  timeout connect 5s
  timeout client 10m
  timeout server 10m
listen relay
  bind 127.0.0.1:${port}
  server home ${new URL(home.url).host}
`);
  const process = spawn('haproxy', ['-db', '-q', '-f', file], { stdio: 'ignore' });
  const found = await once(process, 'spawn').then(() => true, () => false);
  if (!found) return null;
  while (!(await listens(port))) {
    assert.equal(process.exitCode, null, 'HAProxy has ended');
    await delay(20);
  }
  pools.push({ url: `ws://127.0.0.1:${port}` });
  return process;
})();

const connect = async (pool) => {
  const socket = new WebSocket(pool.url, { perMessageDeflate: false });
  // Kept until they are asked for: an event and an answer may come at once.
  socket.messages = on(socket, 'message');
  await once(socket, 'open');
  return socket;
};
let last = 0;
const next = async (socket) => (await socket.messages.next()).value[0];
const call = async (socket, method, params = {}, sessionId = undefined) => {
  last += 1;
  const id = last;
  socket.send(JSON.stringify({ id, method, params, sessionId }));
  for (;;) {
    const message = await next(socket);
    // The beginning is enough: what is measured is not the parser of this script.
    if (message.subarray(0, 20).toString().startsWith(`{"id":${id},`)) return message;
  }
};
const median = (numbers) => [...numbers].sort((a, b) => a - b)[Math.floor(numbers.length / 2)];
const timed = async (work) => {
  const begun = performance.now();
  const result = await work();
  return [performance.now() - begun, result];
};
/** Measures each pool once a round, in turn. */
const turns = async (count, measure) => {
  const times = pools.map(() => []);
  for (let round = 0; round < count; round += 1) {
    for (const [n, pool] of pools.entries()) times[n].push(await measure(pool, n));
  }
  return times.map(median);
};
const print = (what, of, unit) => {
  const figures = of.map((figure) => figure.toFixed(unit === 'ms' ? 3 : 0));
  console.log(`${what.padEnd(22)} ${figures.join(` ${unit}, `)} ${unit}`);
};

const places = ['in no fleet', 'at the node that has the browser', 'through a gateway', ...(haproxy ? ['through HAProxy'] : [])];
console.log(`${' '.repeat(23)}${places.join(', ')}`);
const grants = await turns(rounds, async (pool) => {
  const [took, socket] = await timed(() => connect(pool));
  socket.close();
  await once(socket, 'close');
  // The browser is made anew meanwhile.
  await delay(150);
  return took;
});
print('a connected lease', grants, 'ms');

const sockets = await Promise.all(pools.map(connect));
const pages = await Promise.all(sockets.map(async (socket) => {
  const { result } = JSON.parse(await call(socket, 'Target.getTargets'));
  const { targetId } = result.targetInfos.find((target) => target.type === 'page');
  const attached = JSON.parse(await call(socket, 'Target.attachToTarget', { targetId, flatten: true }));
  return attached.result.sessionId;
}));
/** The median round trip of a command at each pool, many in a row. */
const roundTrips = (work) => turns(rounds, async (_, n) => {
  const [took] = await timed(async () => {
    for (let i = 0; i < COMMANDS; i += 1) await work(n);
  });
  return took / COMMANDS;
});
const trips = await roundTrips((n) => call(sockets[n], 'Browser.getVersion'));
print('a round trip', trips, 'ms');
const pageTrips = await roundTrips((n) => call(sockets[n], 'Runtime.evaluate', { expression: '1' }, pages[n]));
print('that of a page', pageTrips, 'ms');

const large = async (socket, sessionId) => {
  last += 1;
  const id = last;
  const params = { expression: `'x'.repeat(${LARGE})`, returnByValue: true };
  socket.send(JSON.stringify({ id, sessionId, method: 'Runtime.evaluate', params }));
  for (;;) {
    const message = await next(socket);
    if (message.length > LARGE) return;
  }
};
const larges = await turns(Math.ceil(rounds / 3), async (_, n) => (await timed(() => large(sockets[n], pages[n])))[0]);
print('large answers', larges.map((took) => LARGE / 2 ** 20 / took * 1000), 'MiB/s');
for (const socket of sockets) socket.close();

const result = {
  grant_more_ms: grants[2] - grants[1],
  grant_in_fleet_more_ms: grants[1] - grants[0],
  round_trip: trips[2] / trips[1],
  round_trip_of_a_page: pageTrips[2] / pageTrips[1],
  round_trip_in_fleet: trips[1] / trips[0],
  throughput: larges[1] / larges[2],
  ...(haproxy && {
    round_trip_haproxy: trips[3] / trips[1],
    round_trip_of_a_page_haproxy: pageTrips[3] / pageTrips[1],
    throughput_haproxy: larges[1] / larges[3],
  }),
};
for (const figure of Object.values(result)) assert.ok(Number.isFinite(figure));
console.log(JSON.stringify(result));
haproxy?.kill();
for (const pool of [front, home, alone]) await pool.stop();
nats.kill();
await once(nats, 'exit');
rmSync(store, { recursive: true, force: true });
