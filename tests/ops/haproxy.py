"""Runs ops/haproxy/haproxy.cfg in front of two real pools: leases go through, and a pool that drains gets none.

    haproxy.py ops/haproxy/haproxy.cfg target/debug/pool-cli
"""

import base64
import contextlib
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

TOKEN = "a-token-of-this-test"
PATIENCE = 20
CONFIG = """
[gateway]
listen = "{listen}"
external_url = "ws://{outside}/{name}"
[pool]
min_size = 1
max_size = 3
"""


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def until(what, condition):
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"not in time: {what}"
        time.sleep(0.05)


def get(port, path, method="GET", body=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    return answer.status, answer.read().decode()


class Lease:
    """A WebSocket to a browser, with just enough of the protocol for one command at a time."""

    def __init__(self, port, path):
        self.stream = socket.create_connection(("127.0.0.1", port), PATIENCE)
        key = base64.b64encode(os.urandom(16)).decode()
        self.stream.sendall(
            f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAuthorization: Bearer {TOKEN}\r\n"
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


def run(stack, folder, name, outside, pool_cli):
    listen = f"127.0.0.1:{free_port()}"
    config = folder / f"{name}.toml"
    config.write_text(CONFIG.format(listen=listen, outside=outside, name=name))
    log = stack.enter_context(open(folder / f"{name}.log", "w"))
    environment = os.environ | {
        "POOL__GATEWAY__TOKEN": TOKEN,
        "XDG_STATE_HOME": str(folder / name),
    }
    process = subprocess.Popen([pool_cli, "run", "--config", config], env=environment, stdout=log, stderr=log)
    stack.callback(process.wait)
    stack.callback(process.kill)
    return process, int(listen.rsplit(":")[1])


@contextlib.contextmanager
def logs(folder):
    """Shows what all of them wrote, if it goes wrong."""
    try:
        yield
    except BaseException:
        for log in sorted(folder.glob("*.log")):
            print(f"-- {log.name}\n{log.read_text()}", file=sys.stderr)
        raise


def main(config, pool_cli):
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bp-")))
        stack.enter_context(logs(folder))
        port = free_port()
        outside = f"127.0.0.1:{port}"
        pools = {name: run(stack, folder, name, outside, pool_cli) for name in ("pool-1", "pool-2")}

        text = pathlib.Path(config).read_text().replace("bind :3000", f"bind {outside}")
        for name, (_, inside) in pools.items():
            text, replaced = re.subn(f"    server {name} .*", f"    server {name} 127.0.0.1:{inside}", text)
            assert replaced == 1, name
        # Only to ask HAProxy itself what it thinks of the pools.
        text = text.replace("global\n", f"global\n    stats socket {folder}/stats\n", 1)
        (folder / "haproxy.cfg").write_text(text)

        def is_ready(inside):
            try:
                return get(inside, "/readyz")[0] == 200
            except OSError:
                return False

        for name, (_, inside) in pools.items():
            until(f"{name} is ready", lambda: is_ready(inside))
        log = stack.enter_context(open(folder / "haproxy.log", "w"))
        haproxy = subprocess.Popen(
            ["haproxy", "-db", "-f", folder / "haproxy.cfg"],
            env=os.environ | {"POOL_TOKEN": TOKEN}, stdout=log, stderr=log,
        )
        stack.callback(haproxy.wait)
        stack.callback(haproxy.kill)

        def states():
            with socket.socket(socket.AF_UNIX) as asked:
                try:
                    asked.connect(str(folder / "stats"))
                except OSError:
                    return {}
                asked.sendall(b"show stat\n")
                lines = asked.makefile().read().splitlines()
            rows = [line.split(",") for line in lines if line.startswith("pools,pool-")]
            return {row[1]: row[17] for row in rows}

        until("both pools are up", lambda: set(states().values()) == {"UP"} and len(states()) == 2)

        def held(name):
            return len(json.loads(get(port, f"/{name}/sessions")[1]))

        leases = [Lease(port, "/") for _ in range(4)]
        assert [lease.status for lease in leases] == [101] * 4, [lease.status for lease in leases]
        assert all("Chrome" in lease.browser() for lease in leases)
        assert (held("pool-1"), held("pool-2")) == (2, 2), "leases are spread evenly"
        for lease in leases[1:]:
            lease.close()
        until("they are given back", lambda: held("pool-1") + held("pool-2") == 1)

        # An address that was handed out comes back to the pool that has the lease.
        for _ in range(2):
            status, body = get(port, "/browser_pools/default/acquire", "POST", "{}")
            assert status == 200, body
            acquired = json.loads(body)
            url = acquired["cdp_ws_url"]
            path = url.removeprefix(f"ws://{outside}")
            lease = Lease(port, path)
            assert lease.status == 101, url
            assert "Chrome" in lease.browser()
            lease.close()
            release = f"/{path.split('/')[1]}/browser_pools/default/release"
            body = json.dumps({"session_id": acquired["session_id"]})
            status, body = get(port, release, "POST", body)
            assert status in (200, 204), body
        assert get(port, "/metrics")[0] == 404, "behind the balancer it would be that of any pool"

        until("only one is held", lambda: held("pool-1") + held("pool-2") == 1)
        # One of them drains while a client is at work in it: the client stays, the next ones go elsewhere.
        [first] = [name for name in pools if held(name) == 1]
        other = next(name for name in pools if name != first)
        pools[first][0].send_signal(signal.SIGTERM)
        statuses = []
        for _ in range(3):
            lease = Lease(port, "/")
            statuses.append(lease.status)
            assert "Chrome" in lease.browser()
            lease.close()
        assert statuses == [101] * 3, "no client notices"
        until(f"{first} is taken out", lambda: states()[first].startswith("DOWN"))
        assert states()[other] == "UP"
        assert "Chrome" in leases[0].browser(), "a lease that was held goes on"
        leases[0].close()
        assert pools[first][0].wait(PATIENCE) == 0
        assert TOKEN not in (folder / "haproxy.log").read_text()
        print("leases go through HAProxy; a pool that drains gets no new ones and keeps its own")


main(*sys.argv[1:])
