// The table of the tenants, which is there only where there are any.

import { byId } from './dom.js';
import { NOTHING, count, duration } from './format.js';
import { Table } from './table.js';

const COLUMNS = [
  { label: 'Tenant', kind: 'id', text: ({ name }) => name },
  {
    label: 'Leased',
    text: ({ leased, max_leases: most }) => (most === null ? count(leased) : `${leased} of ${most}`),
    hint: ({ max_leases: most }) => (most === null ? 'as many as the pool has' : 'of its maximum'),
  },
  { label: 'Waiting', text: ({ waiting }) => count(waiting) },
  { label: 'Share', text: ({ share }) => String(share) },
  { label: 'Leases', text: ({ leases }) => count(leases), hint: () => 'since the pool was started' },
  { label: 'Failed', text: ({ failures }) => (failures === 0 ? NOTHING : count(failures)) },
  { label: 'Browser time', kind: 'number', text: ({ browser_seconds: seconds }) => duration(seconds * 1000) },
];

export class Tenants {
  #table = new Table(byId('tenants'), COLUMNS, { key: ({ name }) => name, empty: 'No tenants.' });

  show(tenants) {
    byId('tenants-section').hidden = tenants.length === 0;
    this.#table.update(tenants);
  }
}
