"""Checks the manifests in ops/kubernetes without a cluster: schemas, and that they agree with each other.

    kubernetes.py ops/kubernetes target/debug/pool-cli
"""

import pathlib
import subprocess
import sys
import tempfile

import kubernetes_validate
import yaml

# One that is old and still in use, and the newest that is known.
VERSIONS = ["1.30", kubernetes_validate.latest_version()]
# The Prometheus Operator's kinds are not Kubernetes' own, and kustomize reads its file itself.
FOREIGN = ["monitoring.coreos.com/", "kustomize.config.k8s.io/"]


def seconds(text):
    assert text.endswith("s") and text[:-1].isdigit(), text
    return int(text[:-1])


def main(folder, pool_cli):
    documents = {}
    for file in sorted(pathlib.Path(folder).glob("*.yaml")):
        for document in yaml.safe_load_all(file.read_text()):
            documents[file.stem] = document
            if document["apiVersion"].startswith(tuple(FOREIGN)):
                continue
            for version in VERSIONS:
                kubernetes_validate.validate(document, version, strict=True)
    listed = {name.removesuffix(".yaml") for name in documents["kustomization"]["resources"]}
    own = {name for name, it in documents.items() if not it["apiVersion"].startswith(tuple(FOREIGN))}
    assert listed == own, f"kustomization.yaml lists {listed}, there are {own}"

    config = documents["configmap"]["data"]["pool.toml"]
    with tempfile.NamedTemporaryFile("w", suffix=".toml") as file:
        file.write(config)
        file.flush()
        subprocess.run([pool_cli, "check", file.name], check=True)

    pod = documents["deployment"]["spec"]["template"]
    [container] = pod["spec"]["containers"]
    drain = next(
        seconds(line.split('"')[1]) for line in config.splitlines() if line.startswith("drain_timeout")
    )
    pre_stop = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    grace = pod["spec"]["terminationGracePeriodSeconds"]
    assert grace >= pre_stop + drain + 10, f"{grace} s do not suffice for {pre_stop} and {drain}"
    for probe in ["startupProbe", "livenessProbe", "readinessProbe"]:
        assert container[probe]["httpGet"]["path"] in ("/livez", "/readyz"), probe
    names = {port["name"] for port in container["ports"]}
    assert {port["targetPort"] for port in documents["service"]["spec"]["ports"]} <= names
    for name in ["service", "poddisruptionbudget", "servicemonitor"]:
        selector = documents[name]["spec"]["selector"]
        selector = selector.get("matchLabels", selector)
        assert selector.items() <= pod["metadata"]["labels"].items(), name
    mounted = {volume["name"] for volume in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in pod["spec"]["volumes"]}
    print(f"{len(own)} manifests are valid for Kubernetes {' and '.join(VERSIONS)}")


main(*sys.argv[1:])
