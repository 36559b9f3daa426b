self.greeting = 'a service worker';
self.addEventListener('install', () => self.skipWaiting());
self.addEventListener('activate', (event) => event.waitUntil(clients.claim()));
self.addEventListener('fetch', (event) => {
  if (new URL(event.request.url).pathname === '/from-service-worker') {
    event.respondWith(new Response('answered by the service worker'));
  }
});
