"""Alert rules, runbooks and dashboards fit the gateway that is in this repository."""

import json
import re
import subprocess

import pytest

from gateway import metrics
from tests.deploy import observability as seen
from tests.deploy.tools import needs

NAMES = {metrics.public_name(m): m for m in metrics.METRICS.values()}
#: Labels that Prometheus adds, and one that a rule makes.
ADDED = {"instance", "job", "le", "direction"}


def test_the_page_is_what_the_code_says():
    assert seen.PAGE.read_text() == seen.page(), "run `make metrics-page`"


def test_what_is_promised_is_there():
    assert len(seen.promised()) >= 23
    for name, labels in seen.promised().items():
        assert labels <= set(NAMES[name].labels), name


def test_names_follow_prometheus():
    for name, metric in NAMES.items():
        assert re.fullmatch(r"gateway_[a-z]+(_[a-z]+)*", name)
        assert name.endswith("_total") == (metric.kind == "counter"), name
        if metric.kind == "histogram":
            assert name.endswith("_seconds"), name
        assert not {"id", "message_id", "conversation", "subject", "sender"} & set(metric.labels)


@pytest.mark.parametrize(("where", "expression"), seen.expressions(), ids=[w for w, _ in seen.expressions()])
def test_every_metric_that_is_used_exists(where, expression):
    known = seen.shown().keys() | {r["record"] for r in seen.rules() if "record" in r}
    assert seen.used(expression) and seen.used(expression) <= known, seen.used(expression) - known


@pytest.mark.parametrize(("where", "expression"), seen.expressions(), ids=[w for w, _ in seen.expressions()])
def test_every_label_that_is_asked_for_exists(where, expression):
    shown = seen.shown()
    for name, asked in re.findall(r"(gateway_[a-z0-9_]+)\{([^}]*)\}", expression):
        labels = set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", asked))
        assert labels <= shown.get(name, set()) | {"instance", "job"}, (name, labels)
    grouped = {label.strip() for by in re.findall(r"by \(([^)]*)\)", expression) for label in by.split(",")}
    families = [shown.get(n, set()) for n in seen.used(expression)]
    assert grouped <= set().union(ADDED, *families), grouped


def test_every_alert_has_a_runbook_and_every_runbook_an_alert():
    alerts = {rule["alert"]: rule for rule in seen.rules() if "alert" in rule}
    text = seen.RUNBOOKS.read_text()
    assert set(re.findall(r"^## (\w+)$", text, re.MULTILINE)) == set(alerts)
    for name, rule in alerts.items():
        assert rule["annotations"]["runbook_url"] == f"docs/operators/runbooks.md#{name.lower()}"
        assert rule["labels"]["severity"] in ("page", "ticket")
        section = text.partition(f"## {name}\n")[2].partition("\n## ")[0]
        assert section.strip().startswith(f"*{rule['labels']['severity']}.*"), name
        assert "\nLV: " in section, name


def test_every_alert_has_a_unit_test():
    tested = set(re.findall(r"alertname: (\w+)", (seen.RULES.parent / "rules.test.yml").read_text()))
    assert tested == {rule["alert"] for rule in seen.rules() if "alert" in rule}


@needs("promtool")
@pytest.mark.parametrize("command", ["check rules rules.yml", "test rules rules.test.yml"])
def test_promtool(command):
    done = subprocess.run(["promtool", *command.split()], cwd=seen.RULES.parent, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", seen.BOARDS, ids=lambda p: p.stem)
def test_dashboards(path):
    board = json.loads(path.read_text())
    assert board["uid"] == path.stem and board["title"] and "id" not in board
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)
    cells = set()
    for panel in board["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        own = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not own & cells, panel["title"]
        cells |= own
        assert panel["datasource"]["uid"] == "${datasource}" and panel["targets"], panel["title"]


def test_there_are_four_dashboards():
    assert [p.stem for p in seen.BOARDS] == ["gateway-cluster", "gateway-overview", "gateway-partner", "gateway-stages"]
