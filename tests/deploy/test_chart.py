"""The Helm chart: its schema, and what it renders."""

import json
import subprocess

import jsonschema
import pytest
import yaml

from tests.deploy.tools import ROOT, needs

CHART = ROOT / "deploy/kubernetes/chart"
VALUES = yaml.safe_load((CHART / "values.yaml").read_text())
SCHEMA = json.loads((CHART / "values.schema.json").read_text())
ALL = "monitoring.serviceMonitor.enabled=true,monitoring.rules.enabled=true,monitoring.dashboards.enabled=true"


def with_value(path: str, value) -> dict:
    changed = json.loads(json.dumps(VALUES))
    *folders, last = path.split(".")
    place = changed
    for name in folders:
        place = place[name]
    place[last] = value
    return changed


def render(*settings: str) -> dict[tuple[str, str], dict]:
    done = subprocess.run(
        ["helm", "template", "gw", str(CHART), "--kube-version", "1.31.0", *(a for s in settings for a in ("--set", s))],
        capture_output=True, text=True,
    )
    assert done.returncode == 0, done.stderr
    documents = [d for d in yaml.safe_load_all(done.stdout) if d]
    found = {(d["kind"], d["metadata"]["name"]): d for d in documents}
    assert len(found) == len(documents)
    return found


def test_the_defaults_fit_the_schema():
    jsonschema.Draft7Validator.check_schema(SCHEMA)
    jsonschema.validate(VALUES, SCHEMA)


@pytest.mark.parametrize(("path", "value"), [
    ("replicas", 0), ("replicas", "2"), ("image.digest", "sha256:abc"), ("service.as4.type", "Ingress"), ("service.as4.port", 70000),
    ("keyEncryptionKey.secret", ""), ("database.cloudnativepg.enabled", False), ("database.cloudnativepg.storage.size", "50GB"),
    ("database.cloudnativepg.synchronous.dataDurability", "maybe"), ("replica", 2), ("drain.graceSeconds", -1),
])
def test_what_is_wrong_is_refused_before_anything_is_installed(path, value):
    changed = VALUES | {path: value} if "." not in path else with_value(path, value)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(changed, SCHEMA)


def test_a_database_that_is_there_will_do():
    changed = with_value("database.cloudnativepg.enabled", False)
    changed["database"]["existing"]["secret"] = "my-dsn"
    jsonschema.validate(changed, SCHEMA)


def test_every_value_is_used_and_every_use_has_a_value():
    import re

    used = set(re.findall(r"\.Values\.([A-Za-z0-9.]+)", "".join(p.read_text() for p in CHART.rglob("templates/**/*") if p.is_file())))

    def known(path: str) -> bool:
        place = VALUES
        for name in path.split("."):
            if not isinstance(place, dict) or name not in place:
                return False
            place = place[name]
        return True

    assert {path for path in used if not known(path)} == set()
    assert {path.split(".")[0] for path in used} == set(VALUES)


@needs("helm")
def test_helm_finds_no_fault():
    done = subprocess.run(["helm", "lint", "--strict", str(CHART)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@needs("helm")
def test_pods_are_confined():
    pod = render()["StatefulSet", "gw"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"} and not pod["automountServiceAccountToken"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]}}
    written = {m["name"] for m in container["volumeMounts"] if not m.get("readOnly")}
    assert written == {"data", "tmp"}
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    # Nothing secret is in the environment, and files of secrets are closed to others.
    assert all("secret" not in str(e).lower() for e in container["env"])
    assert {v["secret"]["defaultMode"] for v in pod["volumes"] if "secret" in v} == {0o440}
    assert pod["terminationGracePeriodSeconds"] > 5 + 60


@needs("helm")
def test_probes_and_services_go_where_the_gateway_listens():
    found = render()
    [container] = found["StatefulSet", "gw"]["spec"]["template"]["spec"]["containers"]
    ports = {p["name"]: p["containerPort"] for p in container["ports"]}
    environment = {e["name"]: e.get("value") for e in container["env"]}
    for name in ("as4", "plugin", "operations"):
        assert environment[f"GATEWAY__{name.upper()}__BIND"] == f":{ports[name]}"
    probes = {kind: container[f"{kind}Probe"]["httpGet"] for kind in ("startup", "readiness", "liveness")}
    assert {kind: p["path"] for kind, p in probes.items()} == {"startup": "/startupz", "readiness": "/readyz", "liveness": "/livez"}
    assert {p["port"] for p in probes.values()} == {"operations"}
    labels = found["StatefulSet", "gw"]["spec"]["template"]["metadata"]["labels"]
    for (kind, name), one in found.items():
        if kind == "Service":
            assert one["spec"]["selector"].items() <= labels.items(), name
            assert {p["targetPort"] for p in one["spec"]["ports"]} <= ports.keys()
    assert found["Service", "gw-as4"]["spec"]["externalTrafficPolicy"] == "Local"


@needs("helm")
def test_the_database_commits_with_a_standby():
    found = render()
    cluster = found["Cluster", "gw-db"]
    assert cluster["spec"]["instances"] == 3 and cluster["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
    assert cluster["spec"]["postgresql"]["synchronous"] == {"method": "any", "number": 1, "dataDurability": "required"}
    assert cluster["spec"]["postgresql"]["parameters"]["synchronous_commit"] == "on"
    volumes = {v["name"]: v for v in found["StatefulSet", "gw"]["spec"]["template"]["spec"]["volumes"]}
    assert volumes["dsn"]["secret"]["secretName"] == "gw-db-app"
    single = render("database.cloudnativepg.instances=1")["Cluster", "gw-db"]
    assert "synchronous" not in single["spec"]["postgresql"]
    outside = render("database.cloudnativepg.enabled=false", "database.existing.secret=mine")
    assert not [k for k in outside if k[0] == "Cluster"]
    assert {v["name"]: v for v in outside["StatefulSet", "gw"]["spec"]["template"]["spec"]["volumes"]}["dsn"]["secret"]["secretName"] == "mine"


@needs("helm")
def test_monitoring_is_the_same_as_beside_the_chart():
    found = render(*ALL.split(","))
    rules = yaml.safe_load((ROOT / "deploy/observability/rules.yml").read_text())
    assert found["PrometheusRule", "gw"]["spec"] == rules
    for path in (ROOT / "deploy/observability/dashboards").glob("*.json"):
        assert json.loads(found["ConfigMap", f"gw-{path.stem}"]["data"][path.name]) == json.loads(path.read_text())
    assert not [k for k in render() if k[0] in ("ServiceMonitor", "PrometheusRule")]


@needs("helm")
def test_a_configuration_of_ones_own_is_one_the_gateway_reads(tmp_path):
    from gateway.config import Config

    found = render()
    (tmp_path / "gateway.toml").write_text(found["ConfigMap", "gw"]["data"]["gateway.toml"])
    [container] = found["StatefulSet", "gw"]["spec"]["template"]["spec"]["containers"]
    environment = {e["name"]: e.get("value", "pod-0") for e in container["env"] if e["name"].startswith("GATEWAY__")}
    config = Config.load(tmp_path / "gateway.toml", environ=environment)
    assert (config.node.name, config.operations.bind, str(config.data.folder)) == ("pod-0", ":9090", "/data")
