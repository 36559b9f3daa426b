let connections = 0;
self.greeting = 'a shared worker';
self.onconnect = ({ ports: [port] }) => {
  connections += 1;
  port.onmessage = () => port.postMessage(`${connections} connected`);
};
