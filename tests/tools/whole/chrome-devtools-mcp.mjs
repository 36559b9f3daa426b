// chrome-devtools-mcp: an agent's hands with DevTools' own, a trace and a Lighthouse audit among them.

import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { FORM, MARK, NAME, folder, report, ws } from '../lib/job.mjs';
import { server } from '../lib/mcp.mjs';

const folderOf = dirname(createRequire(import.meta.url).resolve('chrome-devtools-mcp/package.json'));
const cli = join(folderOf, 'build/src/bin/chrome-devtools-mcp.js');
const { call: callTool, close } = await server(cli, ['--wsEndpoint', ws, '--no-usage-statistics', '--no-performance-crux'], { cwd: folder });
// The page that a browser begins with, or was left with.
const [, first] = /^(\d+): /m.exec((await callTool('list_pages')).text);
const call = (name, parameters) => callTool(name, { pageId: Number(first), ...parameters });
const evaluate = async (script) => {
  const { text } = await call('evaluate_script', { function: `() => ${script}` });
  return JSON.parse(/```json\n(.*)\n```/s.exec(text)[1]);
};

await call('navigate_page', { url: FORM });
const marks = await evaluate(MARK);
const { text: snapshot } = await call('take_snapshot');
const uid = (element) => new RegExp(`uid=(\\S+) ${element}`).exec(snapshot)[1];
await call('fill', { uid: uid('textbox "Name"'), value: NAME });
await call('click', { uid: uid('button "Send"') });
const did = {
  title: await evaluate('document.title'),
  sent: await evaluate('document.getElementById("sent").textContent'),
  marks,
  picture: (await call('take_screenshot')).image,
  refused: {},
};

const trace = await call('performance_start_trace', { reload: true, autoStop: true }).catch((error) => ({ error }));
if (trace.error) {
  did.refused.trace = trace.error.message;
  // It had emptied the page before it asked for the trace.
  await call('navigate_page', { url: FORM });
} else did.trace = /LCP: \d/.test(trace.text) ? 'complete' : trace.text;

const { text: audit } = await call('lighthouse_audit', { mode: 'navigation' });
did.audit = /Accessibility: \d/i.test(audit) ? 'complete' : audit;
// Nothing else is broken by a part that was refused.
await call('navigate_page', { url: FORM });
if ((await evaluate('document.title')) !== did.title) throw new Error('the page is lost after the audit');
await close();
report(did);
