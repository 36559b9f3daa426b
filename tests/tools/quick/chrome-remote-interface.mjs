// chrome-remote-interface: finds a page by /json/list and the protocol by /json/protocol, and speaks with the page.

import CDP from 'chrome-remote-interface';
import { FORM, MARK, NAME, host, port, report } from '../lib/job.mjs';

const client = await CDP({ host, port });
const { Input, Page, Runtime } = client;
const evaluate = async (expression) => (await Runtime.evaluate({ expression })).result.value;
await Page.enable();
const loaded = Page.loadEventFired();
await Page.navigate({ url: FORM });
await loaded;
const marks = await evaluate(MARK);
await evaluate('document.getElementById("name").focus()');
await Input.insertText({ text: NAME });
const [x, y] = await evaluate('(({ x, y }) => `${x + 5} ${y + 5}`)(document.getElementById("send").getBoundingClientRect())')
  .then((text) => text.split(' ').map(Number));
await Input.dispatchMouseEvent({ type: 'mousePressed', x, y, button: 'left', clickCount: 1 });
await Input.dispatchMouseEvent({ type: 'mouseReleased', x, y, button: 'left', clickCount: 1 });
const { data: picture } = await Page.captureScreenshot();
report({ title: await evaluate('document.title'), sent: await evaluate('document.getElementById("sent").textContent'), marks, picture });
await client.close();
