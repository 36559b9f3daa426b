// A client of the Model Context Protocol over the standard streams of a server that it starts.

import { spawn } from 'node:child_process';
import { createInterface } from 'node:readline';

/** Starts `script` in Node and resolves to `{ call, close }` once it has introduced itself. */
export async function server(script, parameters, { cwd } = {}) {
  const child = spawn(process.execPath, [script, ...parameters], { cwd, stdio: ['pipe', 'pipe', 'inherit'] });
  const waiting = new Map();
  const ended = new Promise((resolve) => child.on('close', resolve));
  ended.then((code) => waiting.forEach(({ reject }) => reject(new Error(`the server ended with ${code}`))));
  createInterface({ input: child.stdout }).on('line', (line) => {
    const { id, result, error } = JSON.parse(line);
    const { resolve, reject } = waiting.get(id) ?? {};
    waiting.delete(id);
    if (error) reject?.(new Error(error.message));
    else resolve?.(result);
  });
  const send = (message) => child.stdin.write(`${JSON.stringify({ jsonrpc: '2.0', ...message })}\n`);
  let last = 0;
  const request = (method, params) => new Promise((resolve, reject) => {
    last += 1;
    waiting.set(last, { resolve, reject });
    send({ id: last, method, params });
  });

  await request('initialize', {
    protocolVersion: '2025-06-18',
    capabilities: {},
    clientInfo: { name: 'browser-pool-tests', version: '1.0.0' },
  });
  send({ method: 'notifications/initialized' });

  /** Calls a tool and resolves to `{ text, image }`; an error that it answers with is thrown. */
  const call = async (name, parameters_ = {}) => {
    const { content, isError } = await request('tools/call', { name, arguments: parameters_ });
    const text = content.filter(({ type }) => type === 'text').map((part) => part.text).join('\n');
    if (isError) throw new Error(text);
    return { text, image: content.find(({ type }) => type === 'image')?.data };
  };
  /** Ends it as the programs that start such servers do: by closing its input. */
  const close = async () => {
    child.stdin.end();
    await ended;
  };
  return { call, close };
}
