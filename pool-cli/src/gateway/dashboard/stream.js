// Server-sent events by fetch: an EventSource could send its token in the address only.

import { request } from './api.js';

const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 10_000;

/** A state comes every second: this long without one, the connection is as good as gone. */
const SILENCE = 5_000;

/**
 * Follows a stream of JSON events for as long as the page is open, over any number of connections.
 *
 * `opened` is awaited before the first event of each connection, `event` gets each one, and `lost` the
 * reason and the milliseconds until the next attempt.
 */
export async function follow(path, { opened, event, lost }) {
  let pause = FIRST_PAUSE;
  for (;;) {
    const silence = new Silence();
    try {
      const answer = await request(path, { signal: silence.signal });
      await opened();
      for await (const text of events(answer.body, silence)) {
        event(JSON.parse(text));
        pause = FIRST_PAUSE;
      }
      throw new Error('the pool has closed the connection');
    } catch (error) {
      // Not all pages at once, when a pool comes back that many watch.
      const wait = pause * (0.75 + Math.random() / 2);
      lost(silence.broken ? new Error('the pool is silent') : error, wait);
      await new Promise((resolve) => { setTimeout(resolve, wait); });
      pause = Math.min(pause * 2, LONGEST_PAUSE);
    } finally {
      silence.end();
    }
  }
}

/** The data of each event of a stream. */
async function* events(body, silence) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = '';
  silence.heard();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    silence.heard();
    const blocks = (rest + value).split('\n\n');
    rest = blocks.pop();
    for (const block of blocks) {
      const data = block.split('\n').filter((line) => line.startsWith('data:'));
      if (data.length > 0) yield data.map((line) => line.slice(5).trimStart()).join('\n');
    }
  }
}

/** Aborts a connection on which nothing is heard any more. It is patient until the first byte: a token
 * may have to be typed. */
class Silence {
  #controller = new AbortController();
  #timer = null;
  broken = false;

  get signal() { return this.#controller.signal; }

  heard() {
    this.end();
    this.#timer = setTimeout(() => {
      this.broken = true;
      this.#controller.abort();
    }, SILENCE);
  }

  end() { clearTimeout(this.#timer); }
}
