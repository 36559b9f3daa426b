// Processes as /proc has them: the view of an oracle that does not ask the pool.

import { readFileSync, readdirSync } from 'node:fs';

/** Every process: `{ pid, parent, state, command }`, `command` with spaces between its arguments. */
export function processes() {
  const found = [];
  for (const entry of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      // The name of a process may hold anything, so the fields are counted from its closing bracket.
      const [state, parent] = readFileSync(`/proc/${entry}/stat`, 'utf8').split(') ').pop().split(' ');
      const command = readFileSync(`/proc/${entry}/cmdline`, 'utf8').replaceAll('\0', ' ');
      found.push({ pid: Number(entry), parent: Number(parent), state, command });
    } catch (error) {
      // It has ended since it was listed.
      if (error.code !== 'ENOENT' && error.code !== 'ESRCH') throw error;
    }
  }
  return found;
}

/** All processes below `pid`, of those in `all`. */
export function descendants(pid, all = processes()) {
  const below = all.filter(({ parent }) => parent === pid);
  return [...below, ...below.flatMap((child) => descendants(child.pid, all))];
}
