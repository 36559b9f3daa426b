// The table of the nodes, which is there only in a fleet.

import { changeNode } from './actions.js';
import { byId, element, setAttribute, setText } from './dom.js';
import { NOTHING, count, duration } from './format.js';
import { Table } from './table.js';

const COLUMNS = [
  {
    label: 'Node', kind: 'id',
    make: () => element('div', { class: 'node' }, element('span'), element('span', { class: 'tag' }, 'this one')),
    update: (node, { name, own }) => {
      const [title, tag] = node.children;
      setText(title, name);
      tag.hidden = !own;
    },
    hint: ({ address }) => address,
  },
  {
    label: 'Phase',
    make: () => element('div', { class: 'state' }, element('span', { class: 'dot', 'aria-hidden': 'true' }), element('span')),
    update: (node, { phase }) => {
      const [dot, name] = node.children;
      setAttribute(dot, 'data-phase', phase);
      setText(name, phase);
    },
  },
  {
    label: 'Places',
    make: () => element('div', { class: 'places' }, element('span', { class: 'places-bar', 'aria-hidden': 'true' }, element('i'), element('i'), element('i')), element('b')),
    update: (node, { places, leased, idle }) => {
      const [bar, number] = node.children;
      const [busy, ready, free] = bar.children;
      busy.style.flexGrow = leased;
      ready.style.flexGrow = idle;
      free.style.flexGrow = Math.max(0, places - leased - idle);
      bar.hidden = places === 0;
      setText(number, places === 0 ? 'a gateway' : `${leased} of ${places}`);
    },
    hint: ({ places, leased, idle, creating }) => `${leased} leased, ${idle} idle and ${creating} being launched of ${places}`,
  },
  { label: 'Idle', kind: 'number', text: ({ idle }) => count(idle) },
  {
    label: 'Waiting', kind: 'number', text: ({ waiting }) => count(waiting),
    hint: ({ queued }) => `clients that connected to it; ${queued} requests from all nodes are in its queue`,
  },
  { label: 'Longest wait', kind: 'number', text: ({ waiting, oldest_wait_ms: oldest }) => (waiting === 0 ? NOTHING : duration(oldest)) },
  { label: 'Memory', kind: 'number', text: ({ memory }) => (memory === null ? NOTHING : `${memory} %`), hint: () => 'memory in use on its machine' },
  { label: 'Age', kind: 'number', text: ({ uptime_ms: uptime }) => duration(uptime), hint: () => 'since it joined the fleet' },
  { label: 'Labels', text: ({ labels }) => Object.entries(labels).map(([name, value]) => `${name}: ${value}`).join(', ') || NOTHING },
  { label: 'Version', text: ({ version }) => version },
  {
    label: 'Actions', kind: 'row-actions', quiet: true,
    make: (current) => element('div', { class: 'buttons' }, element('button', { type: 'button', onclick: () => changeNode(current()) })),
    update: (node, { name, phase }) => {
      const [button] = node.children;
      const action = phase === 'draining' ? 'Undrain' : 'Drain';
      setText(button, action);
      setAttribute(button, 'class', phase === 'draining' ? 'small' : 'small danger');
      setAttribute(button, 'aria-label', `${action} ${name}`);
      button.disabled = phase === 'starting';
    },
  },
];

export class Nodes {
  #table = new Table(byId('nodes'), COLUMNS, {
    key: ({ name }) => name,
    empty: 'No nodes.',
    mark: (row, { name }) => setAttribute(row, 'data-node', name),
  });

  /** Shows a fleet; null for a pool that is in none. */
  show(fleet) {
    byId('nodes-section').hidden = fleet === null;
    if (fleet === null) return;
    const { nodes, connected, connection, relayed } = fleet;
    const sum = (of) => nodes.reduce((all, node) => all + node[of], 0);
    const about = connected
      ? `${count(nodes.length)} ${nodes.length === 1 ? 'node' : 'nodes'}, ${count(sum('leased'))} of ${count(sum('places'))} leased, ${count(sum('waiting'))} waiting; ${count(relayed)} connections are passed on from here to other nodes`
      : `alone: NATS is ${connection}`;
    setText(byId('nodes-about'), about);
    byId('nodes-about').classList.toggle('bad', !connected);
    this.#table.update(nodes);
  }
}
