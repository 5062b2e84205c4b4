"""Reads docs/operators/metrics.md, the rules and the dashboards. `python -m tests.deploy.observability` writes the page."""

import json
import re
from pathlib import Path

import yaml

from gateway import metrics

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/operators/metrics.md"
RULES = ROOT / "deploy/observability/rules.yml"
RUNBOOKS = ROOT / "docs/operators/runbooks.md"
BOARDS = sorted((ROOT / "deploy/observability/dashboards").glob("*.json"))
BEGIN, END = "<!-- from the code: `make metrics-page` -->", "<!-- end -->"


def page() -> str:
    """The page as it should be."""
    before, _, rest = PAGE.read_text().partition(BEGIN)
    return metrics.page(before + BEGIN, END + rest.partition(END)[2])


def rules() -> list[dict]:
    return [rule for group in yaml.safe_load(RULES.read_text())["groups"] for rule in group["rules"]]


def promised() -> dict[str, set[str]]:
    block = PAGE.read_text().partition("```text\n")[2].partition("```")[0]
    return {name: set(labels) for name, *labels in map(str.split, block.splitlines())}


def expressions() -> list[tuple[str, str]]:
    """(where, PromQL) of every rule and panel."""
    found = [(rule.get("alert") or rule["record"], rule["expr"]) for rule in rules()]
    for path in BOARDS:
        board = json.loads(path.read_text())
        found += [(f"{path.stem}: {panel['title']}", target["expr"])
                  for panel in board["panels"] for target in panel.get("targets", ())]
        found += [(path.stem, v["query"]["query"]) for v in board["templating"]["list"] if v["type"] == "query"]
    return found


def used(expression: str) -> set[str]:
    return set(re.findall(r"\bgateway_[a-z0-9_]+", expression))


def shown() -> dict[str, set[str]]:
    """Every series name that /metrics can show, with its labels."""
    found = {}
    for metric in metrics.METRICS.values():
        name = metrics.public_name(metric)
        names = (name,) if metric.kind != "histogram" else (f"{name}_bucket", f"{name}_sum", f"{name}_count")
        found.update({n: set(metric.labels) | ({"le"} if n.endswith("_bucket") else set()) for n in names})
    return found


if __name__ == "__main__":
    PAGE.write_text(page())
