// A pool of its own for a test: `pool-cli run` on a free port.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

const BINARY = process.env.POOL_CLI ?? new URL('../../../target/debug/pool-cli', import.meta.url).pathname;

const NATS = new URL('../../../target/nats/current/nats-server', import.meta.url).pathname;

/** A port of 127.0.0.1 that was free a moment ago. */
export async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  return port;
}

/**
 * Starts a pool with `settings`, `{ section: { key: value } }`, and resolves once it is ready.
 * `port` and `directory` are for one that takes the place of another; `env` is added to its environment.
 */
export async function startPool(settings = {}, { port, directory: given, env } = {}) {
  const address = `127.0.0.1:${port ?? (await freePort())}`;
  const directory = given ?? mkdtempSync(join(tmpdir(), 'browser-pool-test-'));
  const clean = () => given || rmSync(directory, { recursive: true, force: true });
  const config = join(directory, 'pool.toml');
  writeFileSync(config, toml({
    ...settings,
    gateway: { listen: address, ...settings.gateway },
    pool: { state_dir: join(directory, 'state'), ...settings.pool },
  }));

  const child = spawn(BINARY, ['run', '--config', config], {
    env: { ...process.env, ...env },
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  let log = '';
  child.stderr.on('data', (data) => { log = (log + data).slice(-100_000); });
  const exited = new Promise((resolve) => {
    child.on('error', (error) => resolve(String(error)));
    child.on('exit', (code, signal) => resolve(signal ?? code));
  });
  const end = async (signal) => {
    child.kill(signal);
    const code = await exited;
    clean();
    return code;
  };
  const pool = {
    pid: child.pid,
    url: `ws://${address}/`,
    log: () => log,
    get: async (path) => (await fetch(`http://${address}${path}`)).json(),
    /** Ends it as an operator would; resolves to its exit code. */
    stop: () => end('SIGTERM'),
    /** Ends it as the kernel would. */
    kill: () => end('SIGKILL'),
  };

  const ready = async () => {
    const deadline = performance.now() + 30_000;
    while (performance.now() < deadline) {
      const status = await fetch(`http://${address}/readyz`).then((answer) => answer.status, () => 0);
      if (status === 200) return pool;
      await delay(50);
    }
    throw new Error('not ready within 30 s');
  };
  const ended = exited.then((code) => { throw new Error(`it ended with ${code}`); });
  return Promise.race([ready(), ended]).catch(async (error) => {
    await end('SIGKILL');
    throw new Error(`no pool: ${error.message}\n${log}`);
  });
}

/**
 * Starts a NATS server, a gateway without browsers, and a pool with `settings` behind it; resolves once a browser is
 * there. The pool that is returned is the gateway.
 */
export async function startFleet(settings = {}) {
  const nats = await startNats();
  const parts = [];
  const stop = async () => {
    for (const part of parts) await part.stop();
    await nats.stop();
  };
  try {
    for (const [node, more] of [['owner', settings], ['gateway', { ...settings, pool: { ...settings.pool, min_size: 0, max_size: 0 } }]]) {
      const fleet = { nats: [nats.url], name: 'clients', node, secret: 'the secret of a fleet in a test' };
      parts.unshift(await startPool({ ...more, fleet }));
    }
  } catch (error) {
    await stop();
    throw error;
  }
  return { ...parts[0], log: () => parts.map((part) => part.log()).join('\n'), stop };
}

/** Starts the NATS server that `scripts/install-nats` has installed. */
async function startNats() {
  const port = await freePort();
  const directory = mkdtempSync(join(tmpdir(), 'browser-pool-nats-'));
  const child = spawn(NATS, ['--addr', '127.0.0.1', '--port', String(port), '--jetstream', '--store_dir', directory], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const exited = once(child, 'exit');
  let log = '';
  await new Promise((resolve, reject) => {
    child.on('error', () => reject(new Error('no NATS server: scripts/install-nats')));
    child.on('exit', () => reject(new Error(`the NATS server ended\n${log}`)));
    child.stderr.on('data', (data) => {
      log += data;
      if (log.includes('Server is ready')) resolve();
    });
  });
  const stop = async () => {
    child.kill('SIGTERM');
    await exited;
    rmSync(directory, { recursive: true, force: true });
  };
  return { url: `nats://127.0.0.1:${port}`, stop };
}

/** A value of TOML: as JSON has it, but for the keys of tables. */
function inline(value) {
  if (typeof value !== 'object' || Array.isArray(value)) return JSON.stringify(value);
  return `{ ${Object.entries(value).map(([key, one]) => `${key} = ${inline(one)}`).join(', ')} }`;
}

function toml(sections) {
  const lines = Object.entries(sections).map(([name, keys]) => {
    const values = Object.entries(keys).map(([key, value]) => `${key} = ${inline(value)}`);
    return [`[${name}]`, ...values].join('\n');
  });
  return `${lines.join('\n\n')}\n`;
}
