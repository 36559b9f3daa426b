// The test site: static pages and a few routes, on loopback only, with a log of what was asked.
//
//   node tests/site/server.mjs [--port N] [--until-eof]
//
// Prints one JSON line once it serves:
//   {"url":"http://127.0.0.1:P","localhost":"http://localhost:P","ipv6":"http://[::1]:P","https":"https://127.0.0.1:Q"}
// The first three are three *sites* with the same pages; `ipv6` is null where there is no [::1].
// With --until-eof it ends when its standard input does, so that it never outlives its parent.
// The library form is `const site = await serve(); site.url; await site.close()`.

import http from 'node:http';
import https from 'node:https';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { answer } from './routes.mjs';
import { RequestLog } from './log.mjs';

/** Serves the site; `port` 0 takes a free one. */
export async function serve({ port = 0 } = {}) {
  const log = new RequestLog();
  const origins = {};
  const site = { log, origins };
  const listener = (request, response) => {
    answer(site, request, response).catch((error) => {
      if (!response.headersSent) response.writeHead(500, { 'content-type': 'text/plain' });
      response.end(String(error?.stack ?? error));
    });
  };

  const { servers, port: taken } = await listenOnBothFamilies(listener, port);
  const tls = (name) => readFileSync(new URL(`./tls/localhost.${name}`, import.meta.url));
  const secure = https.createServer({ key: tls('key'), cert: tls('crt') }, listener);
  secure.listen(0, '127.0.0.1');
  await once(secure, 'listening');
  servers.push(secure);

  origins.url = `http://127.0.0.1:${taken}`;
  origins.localhost = `http://localhost:${taken}`;
  origins.ipv6 = servers.length === 3 ? `http://[::1]:${taken}` : null;
  origins.https = `https://127.0.0.1:${secure.address().port}`;

  const close = async () => {
    for (const server of servers) {
      server.close();
      server.closeAllConnections();
    }
  };
  return { ...origins, log, close };
}

/** 127.0.0.1 and [::1] on one port, so that only the host tells the sites apart. */
async function listenOnBothFamilies(listener, port) {
  for (let attempt = 1; ; attempt += 1) {
    const four = http.createServer(listener).listen(port, '127.0.0.1');
    await once(four, 'listening');
    const taken = four.address().port;
    const six = http.createServer(listener).listen(taken, '::1');
    try {
      await once(six, 'listening');
      return { servers: [four, six], port: taken };
    } catch (error) {
      if (error.code !== 'EADDRINUSE') return { servers: [four], port: taken };
      four.close();
      if (port !== 0 || attempt === 10) throw error;
    }
  }
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { values } = parseArgs({
    options: { port: { type: 'string', default: '0' }, 'until-eof': { type: 'boolean' } },
  });
  const { url, localhost, ipv6, https: secure } = await serve({ port: Number(values.port) });
  console.log(JSON.stringify({ url, localhost, ipv6, https: secure }));
  if (values['until-eof']) process.stdin.resume().on('end', () => process.exit(0));
}
