// The table of browsers.

import { endLease, retire } from './actions.js';
import { byId, element, setAttribute, setText } from './dom.js';
import { NOTHING, bytes, count, duration } from './format.js';
import { Table } from './table.js';

export class Browsers {
  #table;

  /** `view` opens the live view of a leased browser. */
  constructor(view) {
    const table = byId('browsers');
    this.#table = new Table(table, columns(view), {
      key: ({ id }) => id,
      pick: view,
      empty: 'No browsers yet: the first is launched on demand.',
      mark: (row, { id, lease }) => {
        setAttribute(row, 'data-browser', String(id));
        row.classList.toggle('viewable', lease !== null);
      },
    });
  }

  show(browsers) { this.#table.update(browsers); }
}

const columns = (view) => [
  { label: 'Browser', kind: 'id', text: ({ id }) => String(id) },
  {
    label: 'State',
    make: () => element(
      'div', { class: 'state' },
      element('span', { class: 'dot', 'aria-hidden': 'true' }), element('span'), element('span', { class: 'muted' }),
    ),
    update: (node, { state, since_ms: since }) => {
      const [dot, name, time] = node.children;
      setAttribute(dot, 'data-state', state);
      setText(name, state);
      setText(time, duration(since));
    },
    hint: ({ state, since_ms: since }) => `${state} for ${duration(since)}`,
  },
  { label: 'Class', text: ({ class: name }) => name },
  { label: 'Profile', text: ({ profile }) => profile ?? NOTHING },
  { label: 'Region', text: ({ region }) => region ?? NOTHING },
  { label: 'Age', kind: 'number', text: ({ age_ms: age }) => duration(age) },
  { label: 'Uses', kind: 'number', text: ({ uses }) => count(uses) },
  {
    label: 'Memory', kind: 'number',
    text: ({ memory_bytes: memory }) => bytes(memory),
    hint: ({ pid }) => (pid === null ? null : `process ${pid}`),
  },
  {
    label: 'Last check', kind: 'number',
    text: ({ last_check: check }) => (check === null ? NOTHING : `${duration(check.ago_ms)} ago, ${duration(check.took_ms)}`),
  },
  { label: 'Held by', kind: 'holder', text: ({ lease }) => holder(lease), hint: ({ lease }) => (lease === null ? null : holder(lease)) },
  { label: 'Held for', kind: 'number', text: ({ lease }) => duration(lease?.held_ms) },
  { label: 'Actions', kind: 'row-actions', quiet: true, make: (current) => buttons(current, view), update: (node, browser) => adapt(node, browser) },
];

/** Who has it: what the client said of itself, else where it comes from. */
function holder(lease) {
  if (lease === null) return NOTHING;
  const work = lease.work === null ? null : `/${lease.work}`;
  const said = [lease.tenant, lease.tracking_id, work].filter((word) => word !== null);
  return [...said, lease.peer].filter((word) => word !== null).join(' · ') || 'a lease by REST';
}

function buttons(current, view) {
  const button = (name, kind, act) => element('button', { type: 'button', class: kind, 'data-action': name, onclick: () => act(current()) }, name);
  return element(
    'div', { class: 'buttons' },
    button('View', 'small', view), button('End lease', 'small danger', endLease), button('Retire', 'small', retire),
  );
}

function adapt(node, { id, state, lease }) {
  const [viewing, ending, retiring] = node.children;
  viewing.hidden = lease === null;
  ending.hidden = lease === null;
  retiring.hidden = state === 'closing';
  for (const button of node.children) setAttribute(button, 'aria-label', `${button.dataset.action}: browser ${id}`);
}
