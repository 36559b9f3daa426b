// A CDP client without manners, for what no library would send: attacks, odd envelopes, slow readers.
//
// As a module:
//   const raw = await Raw.connect(url);
//   const { result, error } = await raw.call('Target.getTargets', {}, sessionId);
//   raw.write('{"id":1,"id":2,"method":"Browser.getVersion"}');        // any text, as it is
//   const event = await raw.event('Target.attachedToTarget', ({ targetInfo }) => targetInfo.type === 'page');
//
// As a program: reads one command a line, prints one answer a line, then the events that came, if asked.
//   echo '{"method":"Target.getTargets"}' | node tests/clients/raw.mjs CDP_URL [--events]
// A line that is no JSON object is sent as it is.

import { createInterface } from 'node:readline';
import { pathToFileURL } from 'node:url';
import WebSocket from 'ws';

export class Raw {
  #socket;
  #id = 0;
  #answers = new Map();
  #listeners = new Set();

  /** Every event so far, oldest first: `{method, params, sessionId}`. */
  events = [];
  /** Answers that belong to no `call`: those to what `write` sent, and errors without an id. */
  strays = [];
  /** Resolves to `{code, reason}` when the connection has ended. */
  closed;

  constructor(socket) {
    this.#socket = socket;
    socket.on('message', (data) => this.#receive(JSON.parse(data)));
    // A broken connection is told by `closed`.
    socket.on('error', () => {});
    this.closed = new Promise((resolve) => {
      socket.on('close', (code, reason) => {
        for (const { reject } of this.#answers.values()) reject(new Error(`closed: ${code} ${reason}`));
        this.#answers.clear();
        resolve({ code, reason: String(reason) });
      });
    });
  }

  /** Opens `url`; rejects with `{status, body}` where the upgrade is refused. */
  static connect(url, options = {}) {
    return new Promise((resolve, reject) => {
      const socket = new WebSocket(url, { perMessageDeflate: false, maxPayload: 0, ...options });
      const raw = new Raw(socket);
      socket.on('open', () => resolve(raw));
      socket.on('error', reject);
      socket.on('unexpected-response', async (_, response) => {
        let body = '';
        for await (const chunk of response) body += chunk;
        reject(Object.assign(new Error(`refused: ${response.statusCode}`), { status: response.statusCode, headers: response.headers, body }));
      });
    });
  }

  /** Sends a command and resolves to its whole answer, `{id, result}` or `{id, error}`. */
  call(method, params, sessionId) {
    this.#id += 1;
    const id = this.#id;
    const answer = new Promise((resolve, reject) => this.#answers.set(id, { resolve, reject }));
    this.write(JSON.stringify({ id, method, params, sessionId }));
    return answer;
  }

  /** Like `call`, but throws an error of the protocol. */
  async send(method, params, sessionId) {
    const { result, error } = await this.call(method, params, sessionId);
    if (error) throw Object.assign(new Error(`${method}: ${error.message}`), { code: error.code });
    return result;
  }

  /** Sends a text frame, or a binary one for a Buffer, as it is. */
  write(data) {
    this.#socket.send(data);
  }

  /** The first event, of those that came or will come, that fits. */
  event(method, fits = () => true, ms = 5000) {
    const matches = (event) => event.method === method && fits(event.params, event.sessionId);
    const already = this.events.find(matches);
    if (already) return Promise.resolve(already);
    return new Promise((resolve, reject) => {
      const listener = (event) => {
        if (!matches(event)) return;
        clearTimeout(timer);
        this.#listeners.delete(listener);
        resolve(event);
      };
      const timer = setTimeout(() => {
        this.#listeners.delete(listener);
        reject(new Error(`no ${method} within ${ms} ms`));
      }, ms);
      this.#listeners.add(listener);
    });
  }

  /** Makes a page and attaches to it: `{targetId, sessionId}`. */
  async page(url = 'about:blank', browserContextId = undefined) {
    const { targetId } = await this.send('Target.createTarget', { url, browserContextId });
    const { sessionId } = await this.send('Target.attachToTarget', { targetId, flatten: true });
    return { targetId, sessionId };
  }

  /** Stops and goes on reading from the socket: a client that lets its messages pile up. */
  pause() {
    this.#socket.pause();
  }
  resume() {
    this.#socket.resume();
  }

  /** Closes with a handshake; `drop` cuts the connection without one. */
  close() {
    this.#socket.close(1000);
    return this.closed;
  }
  drop() {
    this.#socket.terminate();
    return this.closed;
  }

  #receive(message) {
    const waiting = this.#answers.get(message.id);
    if (waiting) {
      this.#answers.delete(message.id);
      waiting.resolve(message);
    } else if (message.method === undefined) {
      this.strays.push(message);
    } else {
      this.events.push(message);
      for (const listener of this.#listeners) listener(message);
    }
  }
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [url = process.env.CDP_URL, flag] = process.argv.slice(2);
  const raw = await Raw.connect(url);
  for await (const line of createInterface({ input: process.stdin })) {
    let command;
    try {
      command = JSON.parse(line);
    } catch {
      command = undefined;
    }
    if (typeof command?.method === 'string' && command.id === undefined) {
      console.log(JSON.stringify(await raw.call(command.method, command.params, command.sessionId)));
    } else {
      raw.write(line);
    }
  }
  // Chromium answers in order, so after this one nothing that was written is still on its way.
  await raw.call('Browser.getVersion');
  for (const message of [...raw.strays, ...(flag === '--events' ? raw.events : [])]) console.log(JSON.stringify(message));
  await raw.close();
}
