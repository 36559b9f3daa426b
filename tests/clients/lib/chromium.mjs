// A Chromium of its own with a debugging port, for comparisons only: the pool itself never opens one.

import { spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

const NAMES = {
  shell: ['chromium-headless-shell', 'chrome-headless-shell'],
  chromium: ['chromium', 'chromium-browser', 'google-chrome-stable', 'google-chrome'],
};

/** The executable of an engine, `shell` or `chromium`, on PATH; undefined where it is not installed. */
export function executable(engine) {
  return NAMES[engine].map((name) => spawnSync('sh', ['-c', 'command -v "$0"', name], { encoding: 'utf8' }).stdout.trim()).find(Boolean);
}

/** The flags that every engine is started with here, and by the peers of the benchmarks: as the pool's, where a page could tell. */
export function flags(engine) {
  return [
    ...(engine === 'chromium' ? ['--headless=new', '--no-startup-window'] : []),
    ...(process.getuid?.() === 0 ? ['--no-sandbox'] : []),
    // A page restored from that cache tells no client that it has loaded; Playwright launches with this flag as well.
    '--disable-back-forward-cache',
    '--disable-background-networking',
    '--disable-breakpad',
    '--disable-component-update',
    '--disable-default-apps',
    '--disable-dev-shm-usage',
    '--disable-extensions',
    '--disable-hang-monitor',
    '--disable-ipc-flooding-protection',
    '--disable-popup-blocking',
    '--disable-prompt-on-repost',
    '--disable-features=Translate,OptimizationHints,MediaRouter,WebUIOmniboxPopup,WebUIOmniboxAimPopup',
    '--disable-sync',
    '--export-tagged-pdf',
    '--force-color-profile=srgb',
    '--hide-scrollbars',
    '--mute-audio',
    '--no-default-browser-check',
    '--no-first-run',
    '--password-store=basic',
    '--use-mock-keychain',
    '--blink-settings=primaryHoverType=2,availableHoverTypes=2,primaryPointerType=4,availablePointerTypes=4',
  ];
}

/** What the launchers of clients give to a Chromium besides: it begins with one empty page then. */
export const FIRST_PAGE = 'about:blank';

/**
 * Launches `engine` with `base` and `extra` flags and resolves to `{ url, close, pid }` once it answers. It has a page
 * only with `FIRST_PAGE` among them.
 */
export async function launch(engine, extra = [], base = flags(engine)) {
  const command = executable(engine);
  if (!command) throw new Error(`no ${engine} found: run scripts/install-chromium`);
  const directory = mkdtempSync(join(tmpdir(), 'browser-pool-direct-'));
  const own = base.filter((flag) => !(extra.includes(FIRST_PAGE) && flag === '--no-startup-window'));
  const child = spawn(command, [...own, '--remote-debugging-port=0', `--user-data-dir=${directory}`, ...extra], {
    detached: true,
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const exited = once(child, 'exit');
  const close = async () => {
    try {
      process.kill(-child.pid, 'SIGKILL');
    } catch (error) {
      if (error.code !== 'ESRCH') throw error;
    }
    await exited;
    rmSync(directory, { recursive: true, force: true, maxRetries: 20, retryDelay: 50 });
  };

  // An undrained stderr freezes Chromium, so the lines are read to the end.
  const lines = createInterface({ input: child.stderr });
  const tail = [];
  const url = await new Promise((resolve, reject) => {
    lines.on('line', (line) => {
      tail.push(line);
      if (tail.length > 20) tail.shift();
      const found = /^DevTools listening on (ws:\/\/\S+)/.exec(line);
      if (found) resolve(found[1]);
    });
    lines.on('close', () => reject(new Error(`${command} ended before it listened:\n${tail.join('\n')}`)));
    setTimeout(reject, 20_000, new Error(`${command} did not listen within 20 s`)).unref();
  }).catch(async (error) => {
    await close();
    throw error;
  });
  return { url, close, pid: child.pid };
}
