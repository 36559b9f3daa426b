"""Runs ops/haproxy/haproxy.cfg in front of two real pools: leases go through, and a pool that drains gets none.

    haproxy.py ops/haproxy/haproxy.cfg target/debug/pool-cli
"""

import contextlib
import json
import pathlib
import re
import signal
import socket
import sys
import tempfile

from pools import PATIENCE, TOKEN, Lease, ask, free_port, logs, start, start_pool, until

CONFIG = """
[gateway]
external_url = "ws://{outside}/{name}"
[pool]
min_size = 1
max_size = 3
"""


def main(example, pool_cli):
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bp-")))
        stack.enter_context(logs(folder))
        port = free_port()
        outside = f"127.0.0.1:{port}"
        pools = {}
        for name in ("pool-1", "pool-2"):
            config = CONFIG.format(outside=outside, name=name)
            pools[name] = start_pool(stack, name, pool_cli, folder, config)

        text = pathlib.Path(example).read_text().replace("bind :3000", f"bind {outside}")
        for name, (_, inside) in pools.items():
            text, replaced = re.subn(f"    server {name} .*", f"    server {name} 127.0.0.1:{inside}", text)
            assert replaced == 1, name
        # Only to ask HAProxy itself what it thinks of the pools.
        text = text.replace("global\n", f"global\n    stats socket {folder}/stats\n", 1)
        (folder / "haproxy.cfg").write_text(text)

        command = ["haproxy", "-db", "-f", folder / "haproxy.cfg"]
        start(stack, "haproxy", command, folder, POOL_TOKEN=TOKEN)

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
            return len(json.loads(ask(port, f"/{name}/sessions")[1]))

        leases = [Lease(port, "/") for _ in range(4)]
        assert [lease.status for lease in leases] == [101] * 4, [lease.status for lease in leases]
        assert all("Chrome" in lease.browser() for lease in leases)
        assert (held("pool-1"), held("pool-2")) == (2, 2), "leases are spread evenly"
        for lease in leases[1:]:
            lease.close()
        until("they are given back", lambda: held("pool-1") + held("pool-2") == 1)

        # An address that was handed out comes back to the pool that has the lease.
        for _ in range(2):
            status, body = ask(port, "/browser_pools/default/acquire", "POST", "{}")
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
            status, body = ask(port, release, "POST", body)
            assert status in (200, 204), body
        assert ask(port, "/metrics")[0] == 404, "behind the balancer it would be that of any pool"

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
