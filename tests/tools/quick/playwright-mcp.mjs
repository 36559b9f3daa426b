// @playwright/mcp: an agent's hands, called as an agent calls them. In the browser's own context it leaves downloads
// to the browser, which drops them, so the file is fetched in one of its own, as `--isolated` makes it.

import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { FILES, FORM, MARK, NAME, downloaded, folder, report, ws } from '../lib/job.mjs';
import { server } from '../lib/mcp.mjs';

const cli = join(dirname(createRequire(import.meta.url).resolve('@playwright/mcp/package.json')), 'cli.js');
const output = join(folder, 'output');
const start = (...more) => server(cli, ['--cdp-endpoint', ws, '--output-dir', output, ...more], { cwd: folder });
/** The value that stands under `### Result` in an answer. */
const result = ({ text }) => JSON.parse(/### Result\n(.*)/.exec(text)[1]);

const agent = await start();
const opened = await agent.call('browser_navigate', { url: FORM });
const marks = result(await agent.call('browser_evaluate', { function: `() => ${MARK}` }));
await agent.call('browser_type', { target: '#name', text: NAME });
await agent.call('browser_click', { target: '#send' });
const sent = result(await agent.call('browser_evaluate', { function: '() => document.getElementById("sent").textContent' }));
const { image: picture } = await agent.call('browser_take_screenshot');
await agent.call('browser_close');
await agent.close();

const isolated = await start('--isolated');
await isolated.call('browser_navigate', { url: FILES });
await isolated.call('browser_click', { target: '#download' });
const file = await downloaded(output, 'report.txt');
await isolated.close();
report({ title: /Page Title: (.*)/.exec(opened.text)[1], sent, marks, picture, file });
