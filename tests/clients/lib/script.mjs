// Runs a client script, in Node or in Python by its name, or a program that cargo has built, and collects its lines.

import { spawn } from 'node:child_process';

const FOLDER = new URL('../', import.meta.url).pathname;
const EXAMPLES = process.env.EXAMPLES ?? new URL('../../../target/debug/examples/', import.meta.url).pathname;

/** The command that runs a script, and what comes before its parameters. */
function command(name) {
  if (name.endsWith('.py')) return [`${FOLDER}.venv/bin/python`, `${FOLDER}${name}`];
  if (name.endsWith('.mjs')) return [process.execPath, `${FOLDER}${name}`];
  return [`${EXAMPLES}${name}`];
}

/** Resolves to `{ code, lines, stderr }`; `parameters` follow the script's name. */
export async function script(name, parameters) {
  const [program, ...first] = command(name);
  const child = spawn(program, [...first, ...parameters], { stdio: ['ignore', 'pipe', 'pipe'] });
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
