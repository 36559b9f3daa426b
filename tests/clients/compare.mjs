// Compares two runs of a script: every step of the first is in the second, with the same outcome and result.
//
//   node tests/clients/compare.mjs DIRECT.jsonl POOLED.jsonl [--except step,step]
//
// Prints each difference and then `N passed, N failed`; ends with 1 if there is one.

import { readFileSync } from 'node:fs';
import { parseArgs } from 'node:util';
import { pathToFileURL } from 'node:url';

/** The steps that failed, are missing, or gave another result; those in `except` are expected to differ. */
export function differences(expected, actual, except = []) {
  const found = new Map(actual.map((line) => [line.step, line]));
  const outcome = (line) => line && JSON.stringify([line.ok, line.result]);
  const differs = (line) => !line.ok || outcome(line) !== outcome(found.get(line.step));
  return expected
    .filter((line) => !except.includes(line.step) && differs(line))
    .map((line) => ({ step: line.step, expected: line, actual: found.get(line.step) }));
}

/** The lines of a run. */
export const lines = (text) => text.split('\n').filter(Boolean).map((line) => JSON.parse(line));

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { values, positionals } = parseArgs({ allowPositionals: true, options: { except: { type: 'string', default: '' } } });
  const [expected, actual] = positionals.map((path) => lines(readFileSync(path, 'utf8')));
  const different = differences(expected, actual, values.except.split(','));
  for (const { step, expected: wanted, actual: got } of different) {
    console.log(`${step}\n  expected ${JSON.stringify(wanted)}\n  but got  ${JSON.stringify(got)}`);
  }
  console.log(`${expected.length - different.length} passed, ${different.length} failed`);
  process.exit(different.length === 0 ? 0 : 1);
}
