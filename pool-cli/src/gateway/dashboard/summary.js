// The figures at the top.

import { byId, element, setText } from './dom.js';
import { bytes, count, duration, percent } from './format.js';

const TILES = [
  {
    label: 'Active',
    value: ({ load }) => count(load.leased),
    more: ({ load }) => `of at most ${count(load.max_size)}`,
  },
  {
    label: 'Idle',
    value: ({ load }) => count(load.idle),
    more: ({ load }) => `minimum ${count(load.min_size)}`,
  },
  {
    label: 'Waiting',
    value: ({ load }) => count(load.waiting),
    more: ({ oldest_wait_ms: oldest }) => (oldest === null ? 'none waiting' : `longest ${duration(oldest)}`),
  },
  {
    label: 'Wait, p95',
    value: ({ wait }) => duration(wait.samples ? wait.p95_ms : null),
    more: ({ wait }) => (wait.samples ? `average ${duration(wait.avg_ms)}` : 'none in the last minute'),
  },
  {
    label: 'Utilization',
    value: ({ load }) => percent(load.utilization),
    more: ({ machine }) => (machine.cpu === null ? 'of the usable browsers' : `machine ${machine.cpu} % busy`),
  },
  {
    label: 'Memory',
    value: ({ memory_bytes: memory }) => bytes(memory),
    more: ({ machine }) => (machine.memory === null ? 'of all browsers' : `machine ${machine.memory} % full`),
  },
  {
    label: 'Leases so far',
    value: ({ counters }) => count(counters.acquired),
    more: ({ counters: { timeouts, rejected, errors } }) => {
      const without = [[timeouts, 'timed out'], [rejected, 'refused'], [errors, 'failed']].filter(([number]) => number > 0);
      return without.map(([number, how]) => `${count(number)} ${how}`).join(', ') || 'none refused';
    },
  },
];

export class Summary {
  #tiles;

  constructor() {
    this.#tiles = TILES.map((tile) => {
      const value = element('dd', { class: 'tile-value' });
      const more = element('dd', { class: 'tile-more muted' });
      byId('tiles').append(element('div', { class: 'card tile' }, element('dt', {}, tile.label), value, more));
      return { ...tile, node: value, moreNode: more };
    });
  }

  show(state) {
    const { pool, version, uptime_ms: uptime, draining, load } = state;
    setText(byId('pool'), pool);
    setText(byId('about'), `browser pool ${version}, up ${duration(uptime)}`);
    const queue = load.waiting > 0 ? `, ${load.waiting} waiting` : '';
    document.title = `${load.leased}/${load.max_size}${queue} · ${pool}`;
    byId('banner').hidden = !draining;
    setText(byId('banner'), draining ? 'The pool is draining: it gives no new leases, and ends when the last one does.' : '');
    for (const { value, more, node, moreNode } of this.#tiles) {
      setText(node, value(state));
      setText(moreNode, more(state));
    }
  }
}
