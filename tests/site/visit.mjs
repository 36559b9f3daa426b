// `/visit/N`: 200 pages as a scraper meets them, each with a stylesheet, a script, an image, a fetch and
// a cookie of its own. The page is its own witness: a visit that finds something which another visit
// stored says so in its title, so who collects titles has checked the isolation as well.

import { readFileSync } from 'node:fs';

const image = readFileSync(new URL('./pages/image.png', import.meta.url));
const paragraphs = (n) =>
  Array.from({ length: 12 }, (_, i) => `<p class="c${i}">Paragraph ${i} of visit ${n}. ${'Lorem ipsum dolor sit amet. '.repeat(6)}</p>`).join('\n');

const PARTS = {
  '': (n) => [
    'text/html; charset=utf-8',
    `<!doctype html>
<html lang="en"><head><title>Visit ${n}</title>
<link rel="stylesheet" href="/visit/${n}/style.css"><script src="/visit/${n}/script.js"></script></head>
<body><h1>Visit ${n}</h1><img src="/visit/${n}/image.png" alt="a gradient" width="64" height="64">
${paragraphs(n)}
<output id="fetched"></output></body></html>`,
  ],
  'style.css': (n) => [
    'text/css',
    `body{font:16px/1.5 sans-serif;max-width:60ch;margin:auto}
${Array.from({ length: 12 }, (_, i) => `.c${i}{color:hsl(${(n * 7 + i * 30) % 360} 40% 30%)}`).join('\n')}`,
  ],
  'script.js': (n) => [
    'text/javascript',
    `const seen = [...document.cookie.split('; '), ...Object.keys(localStorage)].filter(Boolean);
if (seen.length) document.title = 'LEAK ' + seen.join(' ');
document.cookie = 'visit${n}=1';
localStorage.setItem('visit${n}', '1');
fetch('/visit/${n}/data.json').then((r) => r.json()).then(({ text }) => {
  const show = () => { document.getElementById('fetched').textContent = text; };
  if (document.readyState === 'loading') addEventListener('DOMContentLoaded', show); else show();
});`,
  ],
  'data.json': (n) => ['application/json', JSON.stringify({ text: `Data of visit ${n}` })],
  'image.png': () => ['image/png', image],
};

export function visitPage({ response }, number, part = '') {
  const n = Number.parseInt(number, 10);
  const make = Number.isInteger(n) && Object.hasOwn(PARTS, part) ? PARTS[part] : undefined;
  if (make === undefined) {
    response.writeHead(404, { 'content-type': 'text/plain' }).end('no such visit');
    return;
  }
  const [type, bytes] = make(n);
  response.writeHead(200, {
    'content-type': type,
    'content-length': Buffer.byteLength(bytes),
    'cache-control': 'max-age=60',
  });
  response.end(bytes);
}
