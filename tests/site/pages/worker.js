self.greeting = 'a dedicated worker';
self.onmessage = ({ data }) => postMessage(`doubled ${data * 2}`);
