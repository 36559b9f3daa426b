// Processes as /proc has them: the view of an oracle that does not ask the pool.

import { readFileSync, readdirSync } from 'node:fs';

/**
 * Every process: `{ pid, started, parent, state, command }`, `started` in clock ticks, `command` with spaces
 * between its arguments. Ids are used again, and within minutes where much is started; with `started` they are not.
 */
export function processes() {
  const found = [];
  for (const entry of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      // The name of a process may hold anything, so the fields are counted from its closing bracket.
      const fields = readFileSync(`/proc/${entry}/stat`, 'utf8').split(') ').pop().split(' ');
      const command = readFileSync(`/proc/${entry}/cmdline`, 'utf8').replaceAll('\0', ' ');
      found.push({ pid: Number(entry), started: Number(fields[19]), parent: Number(fields[1]), state: fields[0], command });
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
