// Lighthouse by its own command line: a full audit, whose performance part is made from a trace.

import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { FORM, folder, host, port, report } from '../lib/job.mjs';

const cli = new URL('node_modules/lighthouse/cli/index.js', import.meta.url).pathname;
const output = join(folder, 'audit.json');

/**
 * Resolves to the report of an audit of `categories`, or to what was printed where there is none. An audit that is made
 * from a trace may fail where there can be none (`traceless`), as long as its category is scored.
 */
function audit(categories, { traceless } = {}) {
  rmSync(output, { force: true });
  const { stderr } = spawnSync(process.execPath, [
    cli, FORM, `--hostname=${host}`, `--port=${port}`, `--only-categories=${categories}`,
    '--output=json', `--output-path=${output}`, '--no-enable-error-reporting', '--quiet',
  ], { encoding: 'utf8' });
  console.error(stderr);
  if (!existsSync(output)) return { error: stderr };
  const { runtimeError, categories: scored, audits } = JSON.parse(readFileSync(output, 'utf8'));
  const errors = Object.values(audits)
    .filter(({ scoreDisplayMode }) => scoreDisplayMode === 'error')
    .filter(({ errorMessage }) => !traceless || !errorMessage.includes('Tracing.start'))
    .map(({ id, errorMessage }) => `${id}: ${errorMessage}`);
  const unscored = Object.values(scored)
    .filter(({ score }) => typeof score !== 'number')
    .map(({ id }) => `${id}: not scored`);
  if (runtimeError) return { error: runtimeError.message };
  if (errors.length > 0 || unscored.length > 0) return { error: [...errors, ...unscored].join('; ') };
  return { picture: audits['final-screenshot']?.details.data.split(',')[1] };
}

const REST = 'accessibility,best-practices,seo';
const whole = audit(`performance,${REST}`);
if (whole.error) {
  report({ audit: audit(REST, { traceless: true }).error ?? 'complete', refused: { trace: whole.error, picture: whole.error } });
} else {
  report({ audit: 'complete', trace: 'complete', picture: whole.picture });
}
