// Runs a client script, in Node or in Python by its name, and collects its lines.

import { spawn } from 'node:child_process';

const FOLDER = new URL('../', import.meta.url).pathname;

/** Resolves to `{ code, lines, stderr }`; `parameters` follow the script's name. */
export async function script(name, parameters) {
  const command = name.endsWith('.py') ? `${FOLDER}.venv/bin/python` : process.execPath;
  const child = spawn(command, [`${FOLDER}${name}`, ...parameters], { stdio: ['ignore', 'pipe', 'pipe'] });
  let stdout = '';
  let stderr = '';
  child.stdout.on('data', (data) => { stdout += data; });
  child.stderr.on('data', (data) => { stderr += data; });
  const code = await new Promise((resolve, reject) => {
    child.on('error', reject);
    child.on('close', resolve);
  });
  return { code, lines: stdout.split('\n').filter(Boolean).map((line) => JSON.parse(line)), stderr };
}
