"""What every backend keeps, whatever its door looks like.

To run it for a backend of your own:

    from tests.contract.backend_contract import BackendContract

    class TestMine(BackendContract):
        def make(self, msh):
            return MyBackend(msh, {})
"""

import inspect
from datetime import UTC, datetime

import httpx
import pytest

from gateway.plugin import DeliveryDelayed, DeliveryRefused, Event, WebhookTarget
from tests.unit.backends.memory_msh import MemoryMsh

EVENT = Event(
    id="evt-1", type="message.received", at=datetime(2026, 11, 21, 12, tzinfo=UTC), subject="msg-1",
    data={"message_id": "1@example"},
)  # fmt: skip
TARGET = WebhookTarget(
    id="wh-1", backend="evidence", url="https://backend.example/events",
    secret="whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
)  # fmt: skip


class BackendContract:
    def make(self, msh):
        """The backend under test, with its default options."""
        raise NotImplementedError

    @pytest.fixture
    def msh(self) -> MemoryMsh:
        return MemoryMsh()

    @pytest.fixture
    def backend(self, msh):
        return self.make(msh)

    def test_says_what_it_is(self, backend):
        assert isinstance(backend.name, str) and backend.name.isidentifier()
        assert isinstance(backend.pushes, bool)
        assert backend.asgi is None or callable(backend.asgi)
        assert all(inspect.iscoroutinefunction(getattr(backend, verb)) for verb in ("deliver", "notify"))

    def test_retries_are_bounded_and_grow(self, backend):
        waits = []
        while (wait := backend.retry_in(len(waits) + 1)) is not None:
            assert wait >= 0
            waits.append(wait)
            assert len(waits) < 1000, "a job must be parked some day"
        assert waits == sorted(waits)

    async def test_a_stranger_gets_nothing(self, backend, msh):
        """[threats K05]"""
        if backend.asgi is None:
            pytest.skip("no HTTP door")
        async with httpx.AsyncClient(transport=httpx.ASGITransport(backend.asgi), base_url="http://gw") as http:
            for path in ("/", "/v1/messages", "/openapi.json", "/nowhere"):
                assert (await http.get(path)).status_code in (401, 403, 404)

    @pytest.mark.parametrize("status", [200, 201, 204])
    async def test_only_2xx_is_success(self, backend, msh, status):
        msh.post_answer = (status, {}, b"")
        await backend.notify(TARGET, EVENT)

    @pytest.mark.parametrize("status", [301, 302, 307, 400, 401, 404, 409, 500, 502])
    async def test_everything_else_is_tried_again(self, backend, msh, status):
        msh.post_answer = (status, {"location": "https://elsewhere.example"}, b"")
        with pytest.raises(DeliveryDelayed):
            await backend.notify(TARGET, EVENT)
        assert len(msh.posted) == 1

    async def test_gone_is_for_good(self, backend, msh):
        msh.post_answer = (410, {}, b"")
        with pytest.raises(DeliveryRefused):
            await backend.notify(TARGET, EVENT)

    @pytest.mark.parametrize("status", [429, 503])
    async def test_retry_after_is_obeyed(self, backend, msh, status):
        msh.post_answer = (status, {"retry-after": "120"}, b"")
        with pytest.raises(DeliveryDelayed) as delayed:
            await backend.notify(TARGET, EVENT)
        assert delayed.value.retry_after == 120

    @pytest.mark.parametrize("error", [DeliveryDelayed("no connection"), DeliveryRefused("egress policy")])
    async def test_what_post_says_passes(self, backend, msh, error):
        msh.broken = error
        with pytest.raises(type(error)):
            await backend.notify(TARGET, EVENT)
