"""Who signs an Error about a message that fits no agreement: the party of ours that it names, in the suite of its sender."""

from msgspec.structs import replace

from gateway.as4.pmode import Party, PModeSet
from gateway.as4.units import PartyId, Service
from tests.world import world

OTHER = Party("AP_AA_02", PartyId("AP_AA_02", "urn:x"))
STRANGER = PartyId("AP_XX_01", "urn:x")


def widen(lv, *more_selves) -> None:
    """A second party of ours, with another partner and another suite, whose legs come first."""
    cell = lv.gateway._rooms.agreements
    pmodes = cell.value.pmodes
    partner = Party("AP_BB_01", PartyId("AP_BB_01", "urn:x"), signing=(b"-",), encryption=b"-")
    first = replace(
        pmodes.legs[0], pmode_id="!first", profile="edelivery-as4/2.0", from_party=partner, to_party=OTHER
    )
    cell.value = type(cell.value)(PModeSet((first, *pmodes.legs), (OTHER, *pmodes.selves)))


async def test_an_error_is_signed_by_the_party_the_message_names(tmp_path):
    """phase4 could not verify our EBMS:0010: the party of the first agreement had signed it."""
    async with world(tmp_path / "lv") as lv:
        widen(lv)
        for change in ({"action": "Unheard"}, {"service": Service("x", "y")}, {"from_role": "urn:other"}):
            answer = await lv.give(lv.peer.message(**change))
            assert (answer.code, answer.signer) == ("EBMS:0010", lv.keys.signing)


async def test_the_sender_alone_tells_who_answers(tmp_path):
    async with world(tmp_path / "lv") as lv:
        widen(lv)
        answer = await lv.give(lv.peer.message(to_party=STRANGER))
        assert (answer.code, answer.signer) == ("EBMS:0010", lv.keys.signing)


async def test_so_does_the_receiver_alone(tmp_path):
    async with world(tmp_path / "lv") as lv:
        widen(lv)
        answer = await lv.give(lv.peer.message(from_party=STRANGER))
        assert (answer.code, answer.signer) == ("EBMS:0010", lv.keys.signing)


async def test_nobody_signs_where_it_could_be_several(tmp_path):
    async with world(tmp_path / "lv") as lv:
        sent = lv.peer.message(from_party=STRANGER, to_party=STRANGER)
        assert (await lv.give(sent)).signer == lv.keys.signing  # our only one
        widen(lv)
        answer = await lv.give(sent)
        assert (answer.code, answer.signer) == ("EBMS:0010", None)


async def test_a_retry_that_was_stamped_anew_is_a_duplicate(tmp_path):
    """phase4 stamps a message anew each time it secures it. The same content under the same id gets a
    receipt for that copy, and is not delivered again."""
    import datetime

    from tests.peer import check_receipt

    async with world(tmp_path / "lv") as lv:
        cids = ["same@peer.example"]
        first = lv.peer.message(cids=cids)
        later = first.message.timestamp + datetime.timedelta(seconds=5)
        again = lv.peer.message(cids=cids, change_header=lambda m: replace(first.message, parts=m.parts, timestamp=later))
        for sent in (first, again):
            check_receipt(await lv.give(sent), sent)
        assert len(await lv.inbox()) == 1
