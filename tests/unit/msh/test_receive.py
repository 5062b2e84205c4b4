"""Bounds of the receiving ladder that no single part reaches."""

import os

from msgspec.structs import replace

from tests.peer import check_receipt
from tests.world import world


async def test_many_parts_are_no_way_round_the_size_of_a_message(tmp_path):
    async with world(tmp_path / "lv") as lv:
        cell = lv.gateway._rooms.agreements
        legs = tuple(replace(leg, max_message=1_000_000) for leg in cell.value.pmodes.legs)
        cell.value = type(cell.value)(replace(cell.value.pmodes, legs=legs))
        part = ("application/octet-stream", os.urandom(200_000).hex().encode())
        sent = lv.peer.message([part, part])
        check_receipt(await lv.give(sent), sent)
        answer = await lv.give(lv.peer.message([part, part, part]))
        assert answer.code in ("EBMS:0303", "EBMS:0007")
        assert len(await lv.inbox()) == 1
