// Wires the page: the stream feeds every view, once a second.

import { drain, flush, resize } from './actions.js';
import { getJson } from './api.js';
import { Browsers } from './browsers.js';
import { prepareDialogs } from './dialogs.js';
import { byId, setAttribute, setText } from './dom.js';
import { duration } from './format.js';
import { History } from './history.js';
import { Journal } from './journal.js';
import { LiveView } from './live.js';
import { Nodes } from './nodes.js';
import { Plots } from './plots.js';
import { States } from './states.js';
import { follow } from './stream.js';
import { Summary } from './summary.js';
import { Tenants } from './tenants.js';
import { Waiters } from './waiters.js';

prepareDialogs();
const history = new History();
const plots = new Plots();
const summary = new Summary();
const states = new States();
const nodes = new Nodes();
const live = new LiveView();
const browsers = new Browsers((browser) => live.open(browser));
const tenants = new Tenants();
const waiters = new Waiters();
const events = new Journal('events', 'Nothing has happened yet.');
const errors = new Journal('errors', 'No errors.');

/** The latest state; null before the first. */
let latest = null;

function show(state) {
  latest = state;
  history.add(state);
  summary.show(state);
  states.show(state.load);
  nodes.show(state.fleet ?? null);
  browsers.show(state.browsers);
  tenants.show(state.tenants);
  waiters.show(state.waiters);
  events.show(state.events);
  errors.show(state.errors);
  live.show(state.browsers);
  draw();
  for (const button of buttons) button.disabled = false;
  byId('drain').disabled = state.draining;
  connection('live', 'live');
}

function draw() {
  const span = Number(document.querySelector('input[name=span]:checked').value);
  plots.show(history, (latest?.at_ms ?? Date.now()) / 1000, span);
}

function connection(state, text, reason = null) {
  setAttribute(byId('connection'), 'data-state', state);
  setAttribute(byId('connection'), 'title', reason);
  setText(byId('connection'), text);
  // What is shown is old then; it stays readable and says so.
  document.body.classList.toggle('stale', state === 'lost');
}

const buttons = ['resize', 'flush', 'drain'].map(byId);
for (const button of buttons) button.disabled = true;
for (const input of document.querySelectorAll('input[name=span]')) input.addEventListener('change', draw);
byId('resize').addEventListener('click', () => resize(latest.load));
byId('flush').addEventListener('click', flush);
byId('drain').addEventListener('click', drain);
draw();

follow('api/stream', {
  opened: async () => { history.replace(await getJson('api/history')); },
  event: show,
  lost: (error, wait) => connection('lost', `not connected, next try in ${duration(wait)}`, error.message),
});
