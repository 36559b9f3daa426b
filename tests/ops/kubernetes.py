"""Checks the manifests in a folder without a cluster: schemas, and that they agree with each other.

    kubernetes.py ops/kubernetes target/debug/pool-cli [target/nats/current/nats-server]
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

import kubernetes_validate
import yaml
from cloudcoil.models.keda import v1alpha1 as keda

# One that is old and still in use, and the newest that is known.
VERSIONS = ["1.30", kubernetes_validate.latest_version()]
# The kinds of operators are not Kubernetes' own, and kustomize reads its file itself.
FOREIGN = ["monitoring.coreos.com/", "keda.sh/", "kustomize.config.k8s.io/"]


def seconds(text):
    number, unit = int(text[:-1]), text[-1]
    return number * {"s": 1, "m": 60}[unit]


def validate(document):
    if document["apiVersion"].startswith("keda.sh/"):
        # It leaves out what it does not know.
        kind = getattr(keda, document["kind"])
        known = kind.model_validate(document).model_dump(by_alias=True, exclude_unset=True, mode="json")
        assert known == document, f"KEDA reads {known}"
    elif not document["apiVersion"].startswith(tuple(FOREIGN)):
        for version in VERSIONS:
            kubernetes_validate.validate(document, version, strict=True)


def check_scaling(documents, pods, config):
    """What KEDA asks is there to be asked, and what it changes is there to be changed."""
    scaled = documents["ScaledObject", "browser-pool"]["spec"]
    target = scaled["scaleTargetRef"]
    assert (target["kind"], target["name"]) in documents, target
    [trigger] = scaled["triggers"]
    host = re.fullmatch(r"http://([\w-]+)\.default\.svc\.cluster\.local:(\d+)/api/autoscale", trigger["metadata"]["url"])
    ports = documents["Service", host[1]]["spec"]["ports"]
    assert int(host[2]) in [port["port"] for port in ports], ports
    places = int(re.search(r"max_size = (\d+)", config)[1])
    assert 0 < int(trigger["metadata"]["targetValue"]) < places, "each node needs room"
    authentication = documents["TriggerAuthentication", trigger["authenticationRef"]["name"]]
    [secret] = authentication["spec"]["secretTargetRef"]
    used = [entry["valueFrom"] for entry in pods["browser-pool"]["containers"][0]["env"] if "valueFrom" in entry]
    assert {"secretKeyRef": {"name": secret["name"], "key": secret["key"]}} in used, used


def check_nats(documents, nats_server):
    text = documents["ConfigMap", "browser-pool-nats"]["data"]["nats.conf"]
    plain = [line for line in pathlib.Path("ops/nats/nats.conf").read_text().splitlines() if line and line[0] != "#"]
    assert text.splitlines() == plain, "it is not ops/nats/nats.conf"
    with tempfile.NamedTemporaryFile("w", suffix=".conf") as file:
        file.write(text)
        file.flush()
        environment = os.environ | {"NATS_PASSWORD": "password"}
        subprocess.run([nats_server, "-t", "-c", file.name], env=environment, check=True, capture_output=True)


def main(folder, pool_cli, nats_server=None):
    documents, files = {}, {}
    for file in sorted(pathlib.Path(folder).glob("*.yaml")):
        for document in yaml.safe_load_all(file.read_text()):
            key = document["kind"], document.get("metadata", {}).get("name")
            assert key not in documents, key
            documents[key] = document
            files.setdefault(file.name, set()).add(document["apiVersion"].startswith(tuple(FOREIGN)))
            validate(document)
    listed = set(documents["Kustomization", None]["resources"])
    own = {name for name, foreign in files.items() if foreign == {False}}
    assert listed == own, f"kustomization.yaml lists {listed}, there are {own}"

    config = documents["ConfigMap", "browser-pool"]["data"]["pool.toml"]
    workloads = {name: it for (kind, name), it in documents.items() if kind in ("Deployment", "StatefulSet")}
    pods = {name: it["spec"]["template"]["spec"] for name, it in workloads.items()}
    labels = [it["spec"]["template"]["metadata"]["labels"] for it in workloads.values()]
    [container] = pods["browser-pool"]["containers"]
    # As a pod would have them, which pool-cli asks for.
    secrets = {entry["name"]: "a-secret-of-this-test" for entry in container["env"] if "valueFrom" in entry}
    values = {entry["name"]: entry["value"] for entry in container["env"] if "value" in entry}
    filled = {name: re.sub(r"\$\((\w+)\)", lambda of: secrets[of[1]], value) for name, value in values.items()}
    # The image has set where it listens, and its token.
    image = re.findall(r"(POOL__GATEWAY__\w+)=('[^']*'|\S+)", pathlib.Path("ops/docker/Dockerfile").read_text())
    image = {name: value.strip("'") for name, value in image}
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(config)
        file.flush()
        subprocess.run([pool_cli, "check", file.name], env=os.environ | image | secrets | filled, check=True)

    drain = next(
        seconds(line.split('"')[1]) for line in config.splitlines() if line.startswith("drain_timeout")
    )
    pre_stop = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    grace = pods["browser-pool"]["terminationGracePeriodSeconds"]
    assert grace >= pre_stop + drain + 10, f"{grace} s do not suffice for {pre_stop} and {drain}"
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"]:
        assert container[probe]["httpGet"]["path"] in ("/livez", "/readyz"), probe
    services = [it["metadata"]["labels"] for (kind, _), it in documents.items() if kind == "Service"]
    for (kind, name), document in documents.items():
        if kind not in ("Service", "ServiceMonitor", "PodDisruptionBudget", "NetworkPolicy"):
            continue
        spec = document["spec"]
        selector = spec.get("podSelector", spec.get("selector"))
        selector = selector.get("matchLabels", selector)
        chosen = [its for its in (services if kind == "ServiceMonitor" else labels) if selector.items() <= its.items()]
        assert len(chosen) == 1, f"{kind} {name} chooses {chosen}"
        if kind == "Service":
            pod = list(pods.values())[labels.index(chosen[0])]
            names = {port["name"] for port in pod["containers"][0]["ports"]}
            assert {port["targetPort"] for port in spec["ports"]} <= names, name
    for name, workload in workloads.items():
        if "serviceName" in workload["spec"]:
            assert ("Service", workload["spec"]["serviceName"]) in documents, name
        mounted = {volume["name"] for volume in pods[name]["containers"][0]["volumeMounts"]}
        assert mounted == {volume["name"] for volume in pods[name]["volumes"]}, name
    if nats_server:
        host = re.search(r"nats://([\w-]+):(\d+)", config)
        assert int(host[2]) in [port["port"] for port in documents["Service", host[1]]["spec"]["ports"]], host
        advertised = re.fullmatch(r"ws://\$\(POD_NAME\)\.([\w-]+):(\d+)", values["POOL__FLEET__ADVERTISE"])
        assert advertised[1] == workloads["browser-pool"]["spec"]["serviceName"]
        assert int(advertised[2]) in [port["containerPort"] for port in container["ports"]]
        check_nats(documents, nats_server)
        check_scaling(documents, pods, config)
    print(f"{len(documents)} manifests in {folder} are valid for Kubernetes {' and '.join(VERSIONS)}")


main(*sys.argv[1:])
