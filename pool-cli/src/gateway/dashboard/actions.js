// What can be done to the pool: asked for, done, and told about.

import { post } from './api.js';
import { askSize, confirm } from './dialogs.js';
import { byId, element } from './dom.js';
import { count } from './format.js';

/** How long a notice stays. */
const NOTICE = 8_000;

const browsers = (number) => `${count(number)} ${number === 1 ? 'browser' : 'browsers'}`;

export async function retire({ id, state }) {
  const leased = state === 'leased';
  await perform(
    {
      title: `Retire browser ${id}?`,
      text: leased
        ? 'Its client keeps it; it is closed when its lease ends, and replaced by a new one if needed.'
        : 'It is closed now, and replaced by a new one if needed.',
      action: 'Retire',
    },
    () => post(`api/browsers/${id}/retire`),
    () => `Browser ${id} ${leased ? 'will be closed when its lease ends' : 'is being closed'}.`,
  );
}

/** Ends a lease; resolves to whether it did. */
export function endLease({ id, lease }) {
  return perform(
    {
      title: `End the lease of browser ${id}?`,
      text: 'Its client is disconnected at once, and loses what it has not saved.',
      action: 'End lease',
    },
    () => post(`api/leases/${encodeURIComponent(lease.id)}/kill`),
    () => `The lease of browser ${id} has ended.`,
  );
}

export function resize(load) {
  askSize(load, async (sizes) => {
    const now = await post('api/resize', sizes);
    notice(`The pool now has at least ${browsers(now.min_size)}, and at most ${now.max_size}.`);
  });
}

export async function flush() {
  await perform(
    {
      title: 'Close all idle browsers?',
      text: 'New ones are launched up to the minimum. Leases are not touched.',
      action: 'Flush idle',
    },
    () => post('api/flush'),
    ({ closed }) => `${browsers(closed)} closed.`,
  );
}

export async function drain() {
  await perform(
    {
      title: 'Drain the pool?',
      text: 'It gives no new leases, allows those that are held some time to finish, and ends. It does not restart by itself.',
      action: 'Drain',
    },
    () => post('api/drain'),
    () => 'The pool is draining.',
  );
}

/** Has a node of the fleet offer nothing more to the others, or offer its browsers again. */
export async function changeNode({ name, phase }) {
  const path = `api/fleet/${encodeURIComponent(name)}`;
  if (phase === 'draining') {
    await perform(
      { title: `Let ${name} offer its browsers again?`, text: 'Clients of all nodes can get them again.', action: 'Undrain' },
      () => post(`${path}/undrain`),
      () => `${name} offers its browsers again.`,
    );
    return;
  }
  await perform(
    {
      title: `Drain ${name}?`,
      text: 'It offers no browsers to other nodes, and is no longer ready for a load balancer. Its leases go on, and its process keeps running: stop it when they are over, or undrain it.',
      action: 'Drain',
    },
    () => post(`${path}/drain`),
    () => `${name} is draining.`,
  );
}

async function perform(question, change, told) {
  if (!(await confirm(question))) return false;
  try {
    notice(told(await change()));
    return true;
  } catch (problem) {
    notice(`${question.action} failed: ${problem.message}`, 'bad');
    return false;
  }
}

function notice(text, kind = 'good') {
  const shown = element('p', { class: `notice ${kind}` }, text);
  byId('notices').append(shown);
  setTimeout(() => shown.remove(), NOTICE);
}
