"""Runs the nodes of ops/docker/compose.yaml on this machine, with its NATS and in its environment: they are one pool.

    fleet.py ops/docker/compose.yaml target/nats/current/nats-server target/debug/pool-cli
"""

import contextlib
import json
import pathlib
import re
import sys
import tempfile

import yaml
from pools import TOKEN, Lease, ask, free_port, logs, start, start_nats, until

SECRETS = {"POOL_TOKEN": TOKEN, "FLEET_SECRET": "a-secret-of-32-letters-and-digits", "NATS_PASSWORD": "password"}


def main(compose, nats_server, pool_cli):
    compose = pathlib.Path(compose)
    services = yaml.safe_load(compose.read_text())["services"]
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bp-")))
        stack.enter_context(logs(folder))

        def environment(service):
            """The variables of a service, with those of the user in their places."""
            filled = {}
            for name, value in services[service]["environment"].items():
                filled[name] = re.sub(r"\$\{(\w+):\?[^}]*\}", lambda of: SECRETS[of[1]], value)
            return filled

        [config] = [volume for volume in services["nats"]["volumes"] if "nats.conf" in volume]
        text = (compose.parent / config.split(":")[0]).read_text()
        assert '"/data"' in text
        (folder / "nats.conf").write_text(text.replace('"/data"', f'"{folder}"'))
        # The ports on the command line are before those of the file.
        nats = start_nats(stack, nats_server, folder, folder / "nats.conf", **environment("nats"))
        ports = {name: free_port() for name in services if name != "nats"}
        for name, port in ports.items():
            variables = environment(name)
            assert variables["POOL__FLEET__NATS"] == '["nats://nats:4222"]'
            assert variables["POOL__FLEET__ADVERTISE"] == f"ws://{name}:3000"
            variables["POOL__FLEET__NATS"] = f'["nats://127.0.0.1:{nats}"]'
            variables["POOL__FLEET__ADVERTISE"] = f"ws://127.0.0.1:{port}"
            variables |= {"POOL__POOL__MAX_SIZE": "1", "POOL__POOL__MIN_SIZE": "0", "XDG_STATE_HOME": folder / name}
            # As the image sets it.
            variables["POOL__GATEWAY__TOKEN"] = '{ env = "POOL_TOKEN" }'
            start(stack, name, [pool_cli, "run", "--listen", f"127.0.0.1:{port}"], folder, **variables)
        first, second = ports

        def is_ready(port):
            with contextlib.suppress(OSError):
                return ask(port, "/readyz")[0] == 200

        def fleet(node):
            status, body = ask(ports[node], "/api/fleet")
            assert status == 200, body
            return {node["name"]: node for node in json.loads(body)["nodes"]}

        for name in ports:
            until(f"{name} is ready", lambda: is_ready(ports[name]))
        for name in ports:
            until(f"{name} hears both", lambda: set(fleet(name)) == set(ports))
        leases = [Lease(ports[first], "/") for _ in range(2)]
        assert all("Chrome" in lease.browser() for lease in leases), "one of them is at the other node"
        until("both are leased", lambda: [node["leased"] for node in fleet(second).values()] == [1, 1])
        figures = json.loads(ask(ports[second], "/api/autoscale")[1])
        assert (figures["places"], figures["leased"]) == (2, 2), figures
        for lease in leases:
            lease.close()

        status, body = ask(ports[first], f"/api/fleet/{second}/drain", "POST", "{}")
        assert status < 300, body
        until("it drains", lambda: fleet(first)[second]["phase"] == "draining")
        status, body = ask(ports[first], f"/api/fleet/{second}/undrain", "POST", "{}")
        assert status < 300, body
        until("it serves again", lambda: fleet(first)[second]["phase"] == "running")
        print("two nodes and NATS, as the compose file has them, are one pool")


main(*sys.argv[1:])
