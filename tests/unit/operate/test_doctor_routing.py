"""What doctor says about who takes what arrives."""

from msgspec.structs import replace

from gateway.operate import backends
from gateway.operate.doctor import _consumers, routes
from tests.world import world

MORE = '[overrides."AP_EE_01:ExecuteQueryResponse"]\nbackend = "domibus_ws"'


async def test_every_backend_with_what_it_gets_and_whether_somebody_takes_it(tmp_path):
    async with world(tmp_path / "lv", more=MORE) as lv:
        rooms = lv.gateway._rooms
        wanted = routes(rooms.agreements.value.pmodes)
        assert wanted["domibus_ws"] == ("ExecuteQueryResponse",)
        assert "ExecuteQueryRequest" in wanted["rest"] and "ExecuteQueryResponse" not in wanted["rest"]

        found = {c.name: c for c in await _consumers(lv.store, wanted, rooms.config)}
        assert {c.verdict for c in found.values()} == {"warn"}
        assert found["backend domibus_ws"].fix == "gateway backends create NAME --backend domibus_ws"
        client, _ = await backends.create(lv.store, "Portal", "domibus_ws")
        found = {c.name: c.verdict for c in await _consumers(lv.store, wanted, rooms.config)}
        assert found == {"backend domibus_ws": "ok", "backend rest": "warn"}
        await backends.revoke(lv.store, client.id)
        found = {c.name: c.verdict for c in await _consumers(lv.store, wanted, rooms.config)}
        assert found["backend domibus_ws"] == "warn"
        pushed = replace(rooms.config, backends={"domibus_ws": {"kind": "soap_push"}})
        assert {c.name: c.verdict for c in await _consumers(lv.store, wanted, pushed)}["backend domibus_ws"] == "ok"
