"""Every declared crash point stands in the code once or more, and no other does."""

import ast
from pathlib import Path

from gateway.stages import POINTS, STAGES

ROOT = Path(__file__).parents[2] / "gateway"


def calls(function):
    for path in ROOT.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == function
                    and node.args and isinstance(node.args[0], ast.Constant)):
                yield node.args[0].value, path


def test_points_in_code_are_the_declared_ones():
    found = {name for name, path in calls("point")}
    assert found == set(POINTS)


def test_points_belong_to_stages():
    assert set(POINTS.values()) <= STAGES


def test_stages_in_code_are_declared():
    assert {name for name, _ in calls("stage")} <= STAGES
