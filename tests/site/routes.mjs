// What the site answers. Static pages come from `pages/`; everything with behaviour is a route here.

import { createHash, randomUUID } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { extname } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { visitPage } from './visit.mjs';

const PAGES = new URL('./pages/', import.meta.url);
const TYPES = {
  '.css': 'text/css',
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript',
  '.pdf': 'application/pdf',
  '.png': 'image/png',
};

/** Answers one request and, unless it asks about the log itself, notes it. */
export async function answer(site, request, response) {
  const url = new URL(request.url, `http://${request.headers.host ?? 'localhost'}`);
  const exchange = { site, request, response, url, query: url.searchParams };
  if (!url.pathname.startsWith('/__')) site.log.add(request, url);

  const [, first, ...rest] = url.pathname.split('/');
  const route = Object.hasOwn(ROUTES, first) ? ROUTES[first] : page;
  await route(exchange, ...rest);
}

function send({ response }, status, body, headers = {}) {
  const length = Buffer.byteLength(body);
  response.writeHead(status, { 'cache-control': 'no-store', 'content-length': length, ...headers });
  response.end(body);
}

const html = (exchange, body, status = 200) => send(exchange, status, body, { 'content-type': TYPES['.html'] });
const json = (exchange, value, headers = {}) =>
  send(exchange, 200, JSON.stringify(value), { 'content-type': 'application/json', ...headers });

async function body(request) {
  const chunks = [];
  for await (const chunk of request) chunks.push(chunk);
  return Buffer.concat(chunks);
}

async function page(exchange) {
  const name = exchange.url.pathname.slice(1) || 'index.html';
  if (!/^[\w.-]+$/.test(name) || name.startsWith('.')) return notFound(exchange);
  try {
    const bytes = await readFile(new URL(name, PAGES));
    const type = TYPES[extname(name)] ?? 'application/octet-stream';
    send(exchange, 200, bytes, { 'content-type': type });
  } catch (error) {
    if (error.code !== 'ENOENT') throw error;
    notFound(exchange);
  }
}

const notFound = (exchange) => html(exchange, '<!doctype html><title>Not found</title><h1>Not found</h1>', 404);

const ROUTES = {
  /** `GET /__log?since=N&path=/p` reads what was asked, `DELETE /__log` forgets it. */
  __log(exchange) {
    const { site, request, query } = exchange;
    if (request.method === 'DELETE') site.log.clear();
    const since = Number(query.get('since') ?? 0);
    json(exchange, site.log.read({ since, path: query.get('path') ?? '/' }));
  },

  /** The names under which the same pages are other sites. */
  __origins: (exchange) => json(exchange, exchange.site.origins),

  /** `/title/some%20words`: a page with that title, as text. */
  title(exchange, words = '') {
    const title = decodeURIComponent(words).replace(/[&<]/g, (c) => (c === '&' ? '&amp;' : '&lt;'));
    html(exchange, `<!doctype html><title>${title}</title><h1>${title}</h1>`);
  },

  visit: visitPage,

  /** The request as the server saw it. */
  async echo(exchange) {
    const { request, url } = exchange;
    const { host, connection, ...headers } = request.headers;
    const sent = (await body(request)).toString();
    json(exchange, { method: request.method, path: url.pathname + url.search, headers, body: sent }, {
      'access-control-allow-origin': '*',
    });
  },

  /** `/cookie?name=a&value=b[&attributes=HttpOnly; Max-Age=60]` sets it, and answers with those that came. */
  cookie(exchange) {
    const { query, request, response } = exchange;
    if (query.has('name')) {
      const extra = query.get('attributes');
      const pair = `${query.get('name')}=${query.get('value') ?? ''}`;
      response.setHeader('set-cookie', `${pair}; Path=/${extra ? `; ${extra}` : ''}`);
    }
    json(exchange, { cookie: request.headers.cookie ?? '' });
  },

  /** Basic auth, `user` and `secret`; `/auth/seen` never challenges, it tells whether credentials came. */
  auth(exchange, leaf) {
    const sent = exchange.request.headers.authorization;
    const right = sent === `Basic ${Buffer.from('user:secret').toString('base64')}`;
    if (leaf === 'seen') return json(exchange, { authorized: right });
    if (right) return html(exchange, '<!doctype html><title>Welcome, user</title>');
    send(exchange, 401, 'credentials wanted', { 'www-authenticate': 'Basic realm="browser-pool"' });
  },

  /** Cacheable for an hour, another body for every request that reaches the server. */
  cached: (exchange) => json(exchange, { id: randomUUID() }, { 'cache-control': 'max-age=3600' }),

  /** `/redirect?n=2&to=/title.html`. */
  redirect(exchange) {
    const n = Number(exchange.query.get('n') ?? 1);
    const to = exchange.query.get('to') ?? '/title.html';
    const location = n > 1 ? `/redirect?n=${n - 1}&to=${encodeURIComponent(to)}` : to;
    send(exchange, 302, '', { location });
  },

  status: (exchange, code = '200') =>
    html(exchange, `<!doctype html><title>Status ${Number(code)}</title>`, Number(code)),

  /** `/slow?ms=500`: the answer comes late; `/hang`: never. */
  async slow(exchange) {
    await delay(Number(exchange.query.get('ms') ?? 1000), undefined, { ref: false });
    html(exchange, '<!doctype html><title>Slow</title>');
  },
  hang() {},

  /** `/download?name=a.txt&size=1000` at once; `/download/slow` starts and never ends. */
  download(exchange, kind) {
    const { query, response } = exchange;
    const name = query.get('name') ?? 'report.txt';
    const headers = {
      'content-type': 'application/octet-stream',
      'content-disposition': `attachment; filename="${name.replace(/[^\w. -]/g, '_')}"`,
    };
    const size = Number(query.get('size') ?? 1000);
    const bytes = Buffer.alloc(size, 'browser-pool\n');
    if (kind !== 'slow') return send(exchange, 200, bytes, headers);
    response.writeHead(200, { ...headers, 'content-length': 10_000_000 });
    response.write(bytes);
  },

  /** Takes a multipart form and tells what each file was. */
  async upload(exchange) {
    const bytes = await body(exchange.request);
    const type = exchange.request.headers['content-type'] ?? '';
    const form = await new Response(bytes, { headers: { 'content-type': type } }).formData();
    const files = [];
    for (const file of form.getAll('file')) {
      const content = Buffer.from(await file.arrayBuffer());
      const sha256 = createHash('sha256').update(content).digest('hex');
      files.push({ name: file.name, size: content.length, sha256 });
    }
    json(exchange, { note: form.get('note'), files });
  },
};
