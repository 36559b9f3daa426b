// A pool of its own for a test: `pool-cli run` on a free port, with what the oracle wants to know of it.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';

const BINARY = process.env.POOL_CLI ?? new URL('../../../target/debug/pool-cli', import.meta.url).pathname;

async function freePort() {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address();
  server.close();
  return port;
}

/** Starts a pool with `settings`, `{ section: { key: value } }`, and resolves once it is ready. */
export async function startPool(settings = {}) {
  const port = await freePort();
  const directory = mkdtempSync(join(tmpdir(), 'browser-pool-test-'));
  const sections = {
    ...settings,
    gateway: { listen: `127.0.0.1:${port}`, ...settings.gateway },
    pool: { state_dir: join(directory, 'state'), ...settings.pool },
  };
  const config = join(directory, 'pool.toml');
  writeFileSync(config, toml(sections));

  const child = spawn(BINARY, ['run', '--config', config], { stdio: ['ignore', 'ignore', 'pipe'] });
  let log = '';
  child.stderr.on('data', (data) => { log = (log + data).slice(-20_000); });
  const exited = new Promise((resolve) => {
    child.on('error', (error) => resolve(String(error)));
    child.on('exit', (code, signal) => resolve(signal ?? code));
  });
  const address = `127.0.0.1:${port}`;
  const pool = {
    pid: child.pid,
    url: `ws://${address}/`,
    log: () => log,
    get: async (path) => (await fetch(`http://${address}${path}`)).json(),
    /** Ends it as an operator would; resolves to its exit code. */
    async stop() {
      child.kill('SIGTERM');
      const code = await exited;
      rmSync(directory, { recursive: true, force: true });
      return code;
    },
    /** Processes below it and its open files, from /proc. */
    resources: () => ({ processes: descendants(child.pid).length, files: readdirSync(`/proc/${child.pid}/fd`).length }),
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
    child.kill('SIGKILL');
    await exited;
    rmSync(directory, { recursive: true, force: true });
    throw new Error(`no pool: ${error.message}\n${log}`);
  });
}

/** Asks again and again until `condition` holds; gives up after `ms`. */
export async function eventually(condition, ms = 10_000) {
  const deadline = performance.now() + ms;
  for (;;) {
    if (await condition()) return;
    if (performance.now() > deadline) throw new Error(`not so within ${ms} ms: ${condition}`);
    await delay(50);
  }
}

function toml(sections) {
  const lines = Object.entries(sections).map(([name, keys]) => {
    const values = Object.entries(keys).map(([key, value]) => `${key} = ${JSON.stringify(value)}`);
    return [`[${name}]`, ...values].join('\n');
  });
  return `${lines.join('\n\n')}\n`;
}

/** The ids of all processes below `pid`. */
function descendants(pid) {
  const children = new Map();
  for (const entry of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      // The name of a process may hold anything, so the fields are counted from its closing bracket.
      const [, parent] = readFileSync(`/proc/${entry}/stat`, 'utf8').split(') ').pop().split(' ');
      children.set(Number(parent), [...(children.get(Number(parent)) ?? []), Number(entry)]);
    } catch (error) {
      // It has ended since it was listed.
      if (error.code !== 'ENOENT' && error.code !== 'ESRCH') throw error;
    }
  }
  const found = [];
  for (const todo = [pid]; todo.length > 0;) {
    const below = children.get(todo.pop()) ?? [];
    found.push(...below);
    todo.push(...below);
  }
  return found;
}
