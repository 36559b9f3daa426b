// The table of those who wait.

import { byId } from './dom.js';
import { NOTHING, count, duration } from './format.js';
import { Table } from './table.js';

const COLUMNS = [
  { label: 'Position', kind: 'id', text: ({ position }) => count(position) },
  { label: 'Priority', text: ({ priority }) => count(priority) },
  { label: 'Tenant', text: ({ tenant }) => tenant ?? NOTHING },
  { label: 'Class', text: ({ class: name }) => name },
  { label: 'Waited', kind: 'number', text: ({ waited_ms: waited }) => duration(waited) },
  {
    label: 'Expected wait', kind: 'number',
    text: ({ expected_ms: expected, why }) => (expected === null ? why ?? NOTHING : `about ${duration(expected)}`),
    hint: () => 'if leases end at the rate of the last minute',
  },
];

export class Waiters {
  #table = new Table(byId('waiters'), COLUMNS, { key: ({ position }) => position, empty: 'No clients are waiting.' });

  show(waiters) { this.#table.update(waiters); }
}
