"""What the checks of this folder have in common: real pools, and clients of them."""

import base64
import contextlib
import http.client
import json
import os
import socket
import struct
import subprocess
import sys
import time

TOKEN = "a-token-of-this-test"
PATIENCE = 20


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def until(what, condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.05)


def ask(port, path, method="GET", body=None):
    """The status and the body of an answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


class Lease:
    """A WebSocket to a browser, with just enough of the protocol for one command at a time."""

    def __init__(self, port, path, token=TOKEN):
        self.stream = socket.create_connection(("127.0.0.1", port), PATIENCE)
        key = base64.b64encode(os.urandom(16)).decode()
        self.stream.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {token}\r\n"
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            f"Sec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        self.file = self.stream.makefile("rb")
        self.status = int(self.file.readline().split()[1])
        while self.file.readline() not in (b"\r\n", b""):
            pass

    def send(self, opcode, payload):
        assert len(payload) < 126
        mask = os.urandom(4)
        masked = bytes(byte ^ mask[index % 4] for index, byte in enumerate(payload))
        self.stream.sendall(bytes([0x80 | opcode, 0x80 | len(payload)]) + mask + masked)

    def browser(self):
        """What the browser at the other end says that it is."""
        self.send(1, json.dumps({"id": 1, "method": "Browser.getVersion"}).encode())
        while True:
            head = self.file.read(2)
            length = head[1] & 0x7F
            if length >= 126:
                length = struct.unpack("!H" if length == 126 else "!Q", self.file.read(2 if length == 126 else 8))[0]
            payload = self.file.read(length)
            if head[0] & 0x0F == 1 and json.loads(payload).get("id") == 1:
                return json.loads(payload)["result"]["product"]

    def close(self):
        self.send(8, struct.pack("!H", 1000))
        self.stream.close()


@contextlib.contextmanager
def logs(folder):
    """Shows what all of them wrote, if it goes wrong."""
    try:
        yield
    except BaseException:
        for log in sorted(folder.glob("*.log")):
            print(f"-- {log.name}\n{log.read_text()}", file=sys.stderr)
        raise


def start(stack, name, command, folder, **variables):
    """A process that ends with the stack; its log is below the folder."""
    log = stack.enter_context(open(folder / f"{name}.log", "w"))
    environment = os.environ | {key: str(value) for key, value in variables.items()}
    process = subprocess.Popen(list(map(str, command)), env=environment, stdout=log, stderr=log)
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process


def start_nats(stack, nats_server, folder, config=None, **variables):
    """A NATS server that is ready, without a configuration one with entries for a fleet: its port."""
    port, monitor = free_port(), free_port()
    command = [nats_server, "--addr", "127.0.0.1", "--port", port, "--http_port", monitor]
    command += ["--config", config] if config else ["--jetstream", "--store_dir", folder / "nats"]
    start(stack, "nats", command, folder, **variables)

    def is_ready():
        with contextlib.suppress(OSError):
            return ask(monitor, "/healthz")[0] == 200

    until("NATS is ready", is_ready)
    return port


def start_pool(stack, name, pool_cli, folder, config):
    """A pool that is ready, with this configuration: the process and its port."""
    port = free_port()
    file = folder / f"{name}.toml"
    file.write_text(config)
    command = [pool_cli, "run", "--listen", f"127.0.0.1:{port}", "--config", file]
    process = start(stack, name, command, folder, POOL__GATEWAY__TOKEN=TOKEN, XDG_STATE_HOME=folder / name)

    def is_ready():
        try:
            return ask(port, "/readyz")[0] == 200
        except OSError:
            assert process.poll() is None, f"{name} has ended"
            return False

    until(f"{name} is ready", is_ready)
    return process, port
