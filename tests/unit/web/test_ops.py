"""The operations listener."""

import pytest

from gateway.web.ops import OpsApp

CHECKS = [("store", True, "PostgreSQL 15"), ("keys", False, "no key for AP_LV_01")]


async def well():
    return "active", (True, CHECKS[:1])


async def ask(path, method="GET", query=b"", *, ready=lambda: (True, []), role=well, started=lambda: True):
    app = OpsApp(ready=ready, role=role, started=started, metrics=lambda accept: ("text/plain; version=0.0.4", b"up " + accept.encode()))
    sent = []

    async def send(event):
        sent.append(event)

    await app(
        {"type": "http", "path": path, "method": method, "query_string": query, "headers": [(b"accept", b"x/y")]}, None, send
    )
    headers = dict(sent[0]["headers"])
    assert method == "HEAD" or int(headers[b"content-length"]) == len(sent[1]["body"])
    return sent[0]["status"], sent[1]["body"].decode(), headers


async def test_livez():
    status, body, headers = await ask("/livez")
    assert (status, body) == (200, "ok\n") and headers[b"cache-control"] == b"no-store"


@pytest.mark.parametrize(("verdict", "status"), [(True, 200), (False, 503)])
async def test_readyz(verdict, status):
    async def ready():
        return verdict, CHECKS

    found, body, _ = await ask("/readyz", ready=ready)
    assert found == status and "PostgreSQL" not in body
    found, body, _ = await ask("/readyz", query=b"verbose", ready=ready)
    assert found == status
    assert body.splitlines()[:2] == ["[+]store PostgreSQL 15", "[-]keys no key for AP_LV_01"]
    assert (await ask("/readyz", "HEAD", ready=ready))[:2] == (status, "")


@pytest.mark.parametrize(("role", "fine", "expected"), [
    ("active", True, {"": (200, "active"), "/active": (200, "active"), "/passive": (503, "not ready")}),
    ("passive", True, {"": (200, "passive"), "/active": (503, "not ready"), "/passive": (200, "passive")}),
    ("passive", False, {"": (503, "not ready"), "/active": (503, "not ready"), "/passive": (503, "not ready")}),
])  # fmt: skip
async def test_rolez_is_for_platforms_that_need_a_passive_node_to_be_well(role, fine, expected):
    async def judged():
        return role, (fine, CHECKS)

    for path, (status, word) in expected.items():
        assert (await ask(f"/rolez{path}", role=judged))[:2] == (status, f"{word}\n")
    assert "[+]store" in (await ask("/rolez", query=b"verbose", role=judged))[1]


async def test_a_role_that_cannot_be_judged_is_none():
    async def broken():
        raise OSError

    assert (await ask("/rolez", role=broken))[0] == 503


async def test_what_cannot_be_judged_is_not_ready():
    def broken():
        raise RuntimeError("secret")

    status, body, _ = await ask("/readyz", query=b"verbose", ready=broken)
    assert status == 503 and "secret" not in body


async def test_startupz():
    assert (await ask("/startupz"))[0] == 200
    assert (await ask("/startupz", started=lambda: False))[0] == 503


async def test_metrics():
    status, body, headers = await ask("/metrics")
    assert (status, body) == (200, "up x/y") and headers[b"content-type"].startswith(b"text/plain")


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/metrics"])
async def test_nothing_can_be_changed_here(path):
    status, _, headers = await ask(path, "POST")
    assert status == 405 and headers[b"allow"] == b"GET, HEAD"


@pytest.mark.parametrize("path", ["/", "/as4", "/readyz/", "//readyz"])
async def test_nothing_else_is_here(path):
    assert (await ask(path))[0] == 404
