"""A legal hold that comes between the look for what is over and its lock."""

import asyncio
import sys

import pytest

from tests.contract.test_keeping_contract import delivered
from tests.contract.test_store_contract import NOW


@pytest.mark.parametrize(("module", "name"), [("messages", "expired"), ("keeping", "forgettable")])
async def test_what_is_held_in_the_last_moment_is_kept(newest, monkeypatch, module, name):
    found = sys.modules[f"gateway.store.postgres.{module}"]
    # The look saw no hold: it was committed after it, and before the lock.
    late = "\n".join(line for line in found.Q[name].splitlines() if "FROM legal_hold" not in line)
    assert late != found.Q[name]
    monkeypatch.setattr(found, "Q", {**found.Q, name: late})
    store = await newest.store()
    kept, other = await delivered(store), await delivered(store)
    await asyncio.sleep(0.01)
    if name == "forgettable":
        assert await store.purge(**NOW) == 2
    await store.hold_legally([kept.id], reason="case 7", actor="anna")
    await asyncio.sleep(0.01)
    if name == "expired":
        assert await store.purge(**NOW) == 1
        assert (await store.message(kept.id)).wrapped_key and not (await store.message(other.id)).wrapped_key
    else:
        assert await store.forget(settled_before=0) == 1
        assert await store.message(kept.id) and await store.message(other.id) is None
