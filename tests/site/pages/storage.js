// Everything a page can store, written and read: `await write('tag')` in one lease, `await read()` in the
// next. `read` gives one value a store, null where it found nothing of anybody's:
//
//   storage.html  write  cookie httpOnlyCookie localStorage sessionStorage indexedDB cacheStorage opfs
//                        serviceWorker httpCache authCache sharedWorker windowName
//                 read   the same, and what only a client can write: permissions overrides initScript
//                        interception clipboard
//
// Of the stores in the fault list, downloads, HSTS, accepted certificates (open the site's https origin),
// visited links (visited.html) and proxy credentials are asked from outside the page.

const DATABASE = 'browser-pool';

const stores = {
  cookie: {
    write: (tag) => { document.cookie = `cookie=${tag}; Max-Age=86400; Path=/`; },
    read: () => /(?:^|; )cookie=([^;]*)/.exec(document.cookie)?.[1],
  },
  httpOnlyCookie: {
    write: (tag) => fetch(`/cookie?name=httpOnly&value=${tag}&attributes=${encodeURIComponent('HttpOnly; Max-Age=86400')}`),
    read: async () => /httpOnly=([^;]*)/.exec((await (await fetch('/cookie')).json()).cookie)?.[1],
  },
  localStorage: {
    write: (tag) => localStorage.setItem('entry', tag),
    read: () => localStorage.getItem('entry'),
  },
  sessionStorage: {
    write: (tag) => sessionStorage.setItem('entry', tag),
    read: () => sessionStorage.getItem('entry'),
  },
  indexedDB: {
    write: async (tag) => {
      const database = await open();
      const change = database.transaction('entries', 'readwrite');
      change.objectStore('entries').put(tag, 'entry');
      await new Promise((done, failed) => { change.oncomplete = done; change.onerror = failed; });
      database.close();
    },
    // Opening makes the database, so a reader first asks whether there is one.
    read: async () => {
      if (!(await indexedDB.databases()).some(({ name }) => name === DATABASE)) return null;
      const database = await open();
      const value = await asked(database.transaction('entries').objectStore('entries').get('entry'));
      database.close();
      return value;
    },
  },
  cacheStorage: {
    write: async (tag) => (await caches.open('entries')).put('/entry', new Response(tag)),
    read: async () => (await caches.match('/entry'))?.text(),
  },
  opfs: {
    write: async (tag) => {
      const root = await navigator.storage.getDirectory();
      const stream = await (await root.getFileHandle('entry', { create: true })).createWritable();
      await stream.write(tag);
      await stream.close();
    },
    read: async () => {
      const root = await navigator.storage.getDirectory();
      try {
        return await (await (await root.getFileHandle('entry')).getFile()).text();
      } catch (error) {
        if (error.name === 'NotFoundError') return null;
        throw error;
      }
    },
  },
  serviceWorker: {
    write: async () => {
      await navigator.serviceWorker.register('/service-worker.js', { scope: '/sw-scope/' });
    },
    read: async () => (await navigator.serviceWorker.getRegistrations())[0]?.scope.replace(location.origin, ''),
  },
  httpCache: {
    write: () => fetch('/cached'),
    // Asks the cache alone: a miss is a network error.
    read: async () => {
      try {
        const answer = await fetch('/cached', { cache: 'only-if-cached', mode: 'same-origin' });
        return answer.ok ? 'cached' : null;
      } catch {
        return null;
      }
    },
  },
  authCache: {
    write: () => new Promise((done) => {
      const request = new XMLHttpRequest();
      request.open('GET', '/auth', true, 'user', 'secret');
      request.onloadend = done;
      request.send();
    }),
    read: async () => ((await (await fetch('/auth/seen')).json()).authorized ? 'authorized' : null),
  },
  sharedWorker: {
    write: () => connections(),
    read: async () => ((await connections()) === '1 connected' ? null : 'already there'),
  },
  windowName: {
    write: (tag) => { window.name = tag; },
    read: () => window.name,
  },
};

/** What is as it is in a fresh browser unless a client changed it. */
const readOnly = {
  permissions: async () => {
    const changed = [];
    for (const name of ['geolocation', 'notifications', 'camera', 'clipboard-read', 'midi']) {
      const { state } = await navigator.permissions.query({ name });
      if (state === 'granted') changed.push(name);
    }
    return changed.join(' ');
  },
  overrides: () => [
    navigator.userAgent,
    navigator.language,
    Intl.DateTimeFormat().resolvedOptions().timeZone,
    `${innerWidth}x${innerHeight}@${devicePixelRatio}`,
    matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light',
    `touch ${navigator.maxTouchPoints}`,
    navigator.onLine ? 'online' : 'offline',
  ].join(' | '),
  initScript: () => window.initScript,
  interception: async () => ((await (await fetch('/echo')).json()).path === '/echo' ? null : 'intercepted'),
  clipboard: async () => {
    try {
      return await Promise.race([
        navigator.clipboard.readText(),
        new Promise((_, late) => setTimeout(late, 1000)),
      ]);
    } catch {
      return null;
    }
  },
};

function asked(request) {
  return new Promise((done, failed) => {
    request.onsuccess = () => done(request.result);
    request.onerror = () => failed(request.error);
  });
}

function open() {
  const request = indexedDB.open(DATABASE, 1);
  request.onupgradeneeded = () => request.result.createObjectStore('entries');
  return asked(request);
}

function connections() {
  const { port } = new SharedWorker('/shared-worker.js', 'storage');
  return new Promise((done) => {
    port.onmessage = ({ data }) => done(data);
    port.postMessage('count');
  });
}

/** Writes `tag` to every store. */
async function write(tag) {
  for (const store of Object.values(stores)) await store.write(tag);
  return Object.keys(stores);
}

/** What every store holds; null for nothing. */
async function read() {
  const found = {};
  for (const [name, store] of Object.entries(stores)) found[name] = (await store.read()) || null;
  for (const [name, look] of Object.entries(readOnly)) found[name] = (await look()) || null;
  return found;
}
