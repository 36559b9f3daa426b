"""Has a real Prometheus watch a real pool: its metrics, the alerts and each query of the dashboard.

    prometheus.py promtool prometheus target/nats/current/nats-server target/debug/pool-cli
"""

import contextlib
import json
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.parse

from pools import TOKEN, Lease, ask, free_port, logs, start, start_nats, start_pool, until

OPS = pathlib.Path(__file__).parents[2] / "ops"
CONFIG = """
global: {{ evaluation_interval: 1s }}
rule_files: [{alerts}]
scrape_configs:
  - job_name: browser-pool
    scrape_interval: 1s
    authorization: {{ credentials: {token} }}
    static_configs: [{{ targets: ["127.0.0.1:{port}"] }}]
"""
VARIABLES = {"$__rate_interval": "30s", "$instance": ".*", "$pool": ".*"}


def queries():
    dashboard = json.loads((OPS / "grafana/browser-pool.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            query = target["expr"]
            for name, value in VARIABLES.items():
                query = query.replace(name, value)
            yield panel["title"], query


def main(promtool, prometheus, nats_server, pool_cli):
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bp-")))
        stack.enter_context(logs(folder))
        config = (
            "[pool]\nmin_size = 1\nmax_size = 2\nhealth_check_interval = \"1s\"\n"
            f"[fleet]\nnats = [\"nats://127.0.0.1:{start_nats(stack, nats_server, folder)}\"]\n"
            "node = \"alone\"\nadvertise = \"ws://127.0.0.1:1\"\nsecret = \"a-secret-of-this-test\"\n"
            "[tenants.ada]\ntoken = \"ada-token\"\nmax_leases = 1\n[tenants.ben]\ntoken = \"ben-token\"\n"
        )
        pool, port = start_pool(stack, "pool", pool_cli, folder, config)
        metrics = ask(port, "/metrics")[1]
        subprocess.run([promtool, "check", "metrics"], input=metrics, text=True, check=True)

        watcher = free_port()
        (folder / "prometheus.yml").write_text(
            CONFIG.format(alerts=OPS / "prometheus/alerts.yml", token=TOKEN, port=port)
        )
        command = [
            prometheus, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data",
            f"--web.listen-address=127.0.0.1:{watcher}",
        ]
        start(stack, "prometheus", command, folder)

        def asked(path):
            try:
                status, body = ask(watcher, f"/api/v1/{path}")
            except OSError:
                return None
            # Until its storage is open it answers with a sentence.
            answer = json.loads(body) if body.startswith("{") else {}
            assert status == 503 or answer["status"] == "success", f"{path}: {body}"
            return answer.get("data")

        def value(query):
            data = asked(f"query?{urllib.parse.urlencode({'query': query})}")
            return data and data["result"]

        until("it is scraped", lambda: value('up{job="browser-pool"} == 1'))
        for _ in range(4):
            lease = Lease(port, "/")
            assert "Chrome" in lease.browser()
            lease.close()
            # So that the leases are in more than one scrape.
            time.sleep(1)
        held = Lease(port, "/", "ada-token")
        assert "Chrome" in held.browser()
        until("all leases are counted", lambda: value('browserpool_acquires_total{outcome="granted"} >= 5'))
        until("the tenant's are too", lambda: value('browserpool_tenant_leases{tenant="ada"} == 1'))
        shown = 0
        for title, query in queries():
            found = value(query)
            # What is shown only where it is not 0 may well be nowhere.
            assert found or query.endswith("> 0"), f"{title} shows nothing: {query}"
            shown += 1

        def rules():
            return [rule for group in asked("rules")["groups"] for rule in group["rules"]]

        until("all rules are evaluated", lambda: all(rule["health"] != "unknown" for rule in rules()))
        for rule in rules():
            assert rule["health"] == "ok", rule
            assert rule["state"] == "inactive", f"{rule['name']} is {rule['state']} of a pool that is well"
        samples = sum(line.startswith("browserpool_") for line in metrics.splitlines())
        held.close()
        print(f"{samples} samples, {shown} queries of the dashboard and {len(rules())} alerts are in order")


main(*sys.argv[1:])
