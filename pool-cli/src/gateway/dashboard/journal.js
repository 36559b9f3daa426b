// The latest events, and the errors among them.

import { byId, element, setAttribute, setText } from './dom.js';
import { NOTHING, clock, count, duration, words } from './format.js';
import { Table } from './table.js';

const COLUMNS = [
  { label: 'Time', kind: 'id', text: ({ at_ms: at }) => clock(at) },
  { label: 'Event', kind: 'event', text: ({ event }) => words(event) },
  { label: 'Browser', kind: 'number', text: ({ browser }) => count(browser) },
  { label: 'Took', kind: 'number', text: ({ took_ms: took }) => duration(took) },
  { label: 'Class', text: ({ class: name }) => name ?? NOTHING },
  {
    label: 'Reason', kind: 'reason',
    make: () => element('div'),
    update: (node, { reason }) => setText(node, reason ?? NOTHING),
    hint: ({ reason }) => reason,
  },
];

export class Journal {
  #table;

  constructor(id, empty) {
    this.#table = new Table(byId(id), COLUMNS, {
      key: ({ number }) => number,
      empty,
      mark: (row, { severity }) => setAttribute(row, 'data-severity', severity),
    });
  }

  show(entries) { this.#table.update(entries); }
}
