"""docs/operators/audit.md and expiry.md, pasted: every example marked `runs` on a site with a database, every one marked `loads` as configuration."""

import asyncio
import shutil
import tomllib
from pathlib import Path

import pytest

from gateway.config import Config
from gateway.operate import backends
from gateway.store.postgres import PostgresStore
from gateway.store.postgres.migrate import migrate
from tests.interop.test_docs_backends import BLOCK, ROOT, shell
from tests.unit.cli.test_audited_verbs import server, site  # noqa: F401 - fixtures

PAGES = [ROOT / "docs" / "operators" / name for name in ("audit.md", "expiry.md")]


def blocks(page: Path):
    return [match.groupdict() for match in BLOCK.finditer(page.read_text())]


@pytest.fixture
def filled(site, server):  # noqa: F811
    asyncio.run(migrate(server))

    async def fill():
        store = await PostgresStore.open(server)
        await backends.create(store, "portal", "rest", by="anna@lv-test")
        await store.close()

    asyncio.run(fill())
    return site


@pytest.mark.skipif(not shutil.which("jq"), reason="the examples are for jq")
@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_every_example_runs_in_the_order_of_the_page(page, filled, server):  # noqa: F811
    ran = [block for block in blocks(page) if block["mark"] == "runs"]
    assert ran
    for block in ran:
        printed = shell(block["text"], filled, {"TEST_DSN": server})
        for line in block["prints"].splitlines():
            wanted = line.removeprefix("<!-- prints: ").removesuffix(" -->")
            assert wanted in printed, f"{block['text']}\n{printed}"


@pytest.mark.parametrize("text", [b["text"] for page in PAGES for b in blocks(page) if b["mark"] == "loads"])
def test_configurations_load(text, tmp_path):
    tomllib.loads(text)
    (tmp_path / "gateway.toml").write_text(text)
    alerts = Config.load(tmp_path / "gateway.toml", environ={}).alerts
    assert alerts.url or alerts.command
