// The HTTP API of the pool. Addresses are relative, so that the page works under any prefix.

import { askToken, token } from './token.js';

/** What the pool answered instead of what was asked for. */
export class Problem extends Error {
  constructor(status, code, message) {
    super(message);
    this.status = status;
    this.code = code;
  }

  static async of(answer) {
    const said = await answer.json().catch(() => ({}));
    return new Problem(answer.status, said.code, said.detail ?? `the pool answered ${answer.status}`);
  }
}

/** The answer to a request; asks for the token where one is wanted. Throws a `Problem` for a refusal. */
export async function request(path, { method = 'GET', body, signal } = {}) {
  for (;;) {
    const shown = token();
    const headers = {};
    if (shown !== null) headers.authorization = `Bearer ${shown}`;
    if (body !== undefined) headers['content-type'] = 'application/json';
    const answer = await fetch(path, {
      method, headers, signal, cache: 'no-store',
      body: body === undefined ? undefined : JSON.stringify(body),
    });
    if (answer.status === 401) {
      // Another request may have got a token while this one was under way.
      if (shown === token()) await askToken(shown !== null);
      signal?.throwIfAborted();
      continue;
    }
    if (!answer.ok) throw await Problem.of(answer);
    return answer;
  }
}

export const getJson = async (path, options) => (await request(path, options)).json();

/** Asks for a change, in JSON as no page of another site can; the JSON that came back, or null. */
export async function post(path, body = {}) {
  const text = await (await request(path, { method: 'POST', body })).text();
  return text ? JSON.parse(text) : null;
}
