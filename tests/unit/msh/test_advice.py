"""The rules of OOTS as advice: on the way in never in the way, on the way out as the agreement says."""

import asyncio
import os
import uuid
from datetime import UTC, datetime
from unittest import mock
from uuid import UUID

import pytest
from msgspec.structs import replace

from gateway.as4.units import Property
from gateway.errors import RulesBroken, SubmissionRefused
from gateway.msh import advice
from gateway.oots import birth, codes, samples
from gateway.plugin import PartSubmission, PartyRef, PropertyValue, Submission
from gateway.store.api import MessageFilter
from tests.peer import check_receipt
from tests.world import CALLER, EE, LV, world

AT = datetime(2026, 9, 1, 8, 0, tzinfo=UTC)
REGREP = "application/x-ebrs+xml"
OLD = replace(birth.BIRTH, specification=codes.EDM_1_2)
EXCHANGE = "c6d1a9b2-3a57-4c1e-b0d4-9f2200000020"
ER, EP = ("LV-DEMO-ER-1", f"{codes.UNREGISTERED}LV"), ("EE-DEMO-EP-1", f"{codes.EAS_SCHEME}0191")


def corners(sender, recipient, specification="oots-edm:v2.0"):
    """The properties of a message, two or four."""
    found = (Property("originalSender", *sender), Property("finalRecipient", *recipient))
    if specification is None:
        return found
    return (*found, Property("ExchangeId", EXCHANGE), Property("SpecificationId", specification))


def question(scenario=birth.BIRTH, id=None) -> bytes:
    return samples.request(scenario, id=id or uuid.uuid4(), at=AT).encode()


def answer(request_id, scenario=birth.BIRTH, cid="certificate@ee.example") -> bytes:
    document = samples.Document(cid=cid, title="Birth certificate", evidence_id=UUID(int=1), issued_on="2026-09-01")
    return samples.response(
        scenario, request_id=f"urn:uuid:{request_id}", response_id=uuid.uuid4(), at=AT, documents=(document,)
    ).encode()


def asking(lv, octets=None, *, scenario=birth.BIRTH, more=(), **header):
    """A request of the peer; its corners are those of the document, turned round."""
    specification = None if scenario is OLD else "oots-edm:v2.0"
    header.setdefault("properties", corners(ER, EP, specification))
    return lv.peer.message([(REGREP, octets or question(scenario)), *more], **header)


async def stored(lv, direction="inbound"):
    (found,) = await lv.store.messages(MessageFilter(direction=direction))
    return found


def ids(message) -> list[str]:
    return [finding.rule for finding in message.findings]


# -- inbound -------------------------------------------------------------------------------


async def test_both_lines_over_one_leg(tmp_path):
    """A partner in transition speaks 1.2 and 2.0 on one agreement; each message is judged by its own line."""
    async with world(tmp_path / "lv") as lv:
        for scenario in (birth.BIRTH, OLD):
            sent = asking(lv, scenario=scenario)
            check_receipt(await lv.give(sent), sent)
        new, old_ = (d.message for d in await lv.inbox())
        assert (new.findings, old_.findings) == ((), ())
        assert (new.document.specification, old_.document.specification) == ("oots-edm:v2.0", "oots-edm:v1.2")
        assert {m.pmode_id for m in await lv.store.messages(MessageFilter())} == {"AP_EE_01:AP_LV_01:ExecuteQueryRequest"}


@pytest.mark.parametrize("rules", ["advise", "refuse"])
async def test_a_breach_is_receipted_delivered_and_told(tmp_path, rules):
    async with world(tmp_path / "lv", more=f'[overrides.AP_EE_01]\nrules = "{rules}"') as lv:
        properties = (*corners(ER, EP)[:3], Property("colour", "blue"))
        sent = asking(lv, question(OLD), properties=properties, conversation_id="urn:uuid:1")
        check_receipt(await lv.give(sent), sent)
        (delivery,) = await lv.inbox()
        view = delivery.message
        assert [f.rule for f in view.findings] == ["H-13", "H-14", "H-15"]
        assert {f.line for f in view.findings} == {"1.x"}
        assert view.findings[0].official == "R-EDM-ebMS-017" and view.findings[0].severity == "fatal"
        assert await lv.content(delivery) == [sent.payloads[view.parts[0].cid]]
        assert view.document.kind == "request" and view.document.procedure == "R1"
        [(_, _, _, _, data)] = await lv.store.events(message=UUID(view.id))
        assert data == {"findings": 3}
        assert [s.stage for s in await lv.door.trace(CALLER, view.id)].count("advise") == 1


async def test_profiles_without_rules_have_no_findings(tmp_path):
    exchange = """
[[exchanges]]
service = "QueryManager"
service_type = "urn:oasis:names:tc:ebcore:ebrs:ebms:binding:1.0"
action = "ExecuteQueryRequest"
from_role = "http://sdg.europa.eu/edelivery/gateway"
to_role = "http://sdg.europa.eu/edelivery/gateway"
"""
    async with world(tmp_path / "lv", profile="edelivery-as4/1.15", more=exchange) as lv:
        sent = asking(lv, b"no document", conversation_id="x")
        check_receipt(await lv.give(sent), sent)
        message = await stored(lv)
        assert message.findings == () and message.document is None
        assert "advise" not in {step.stage for step in message.steps}


async def test_the_test_service_has_no_rules(tmp_path):
    from gateway.as4 import ns
    from gateway.as4.units import Service

    async with world(tmp_path / "lv") as lv:
        sent = lv.peer.message([], service=Service(ns.TEST_SERVICE), action=ns.TEST_ACTION, properties=())
        check_receipt(await lv.give(sent), sent)
        assert (await stored(lv)).findings == ()


DEEP = b"<a>" * 100_000
HOSTILE = {
    "empty": b"",
    "no XML": b"\0\xff" * 4000,
    "deep": DEEP + b"</a>" * 100_000,
    "entities": b'<!DOCTYPE a [<!ENTITY a "' + b"x" * 1000 + b'"><!ENTITY b "' + b"&a;" * 1000 + b'">]><a>&b;</a>',
    "outside": b'<!DOCTYPE a SYSTEM "file:///etc/passwd"><a/>',
    "wide": b"<a>" + b"<b/>" * 200_000 + b"</a>",
    "instructions": b"<?p?>" * 200_000 + b"<a/>",
    "latin": '<?xml version="1.0" encoding="iso-8859-1"?><a>ā</a>'.encode("latin-1", "replace"),
    "ebcdic": "<a/>".encode("cp500"),
}


@pytest.mark.parametrize("octets", HOSTILE.values(), ids=HOSTILE)
async def test_a_hostile_document_is_a_finding_and_nothing_else(tmp_path, octets):
    async with world(tmp_path / "lv") as lv:
        sent = asking(lv, octets or b" ", properties=corners(ER, EP))
        check_receipt(await lv.give(sent), sent)
        (delivery,) = await lv.inbox()
        assert [f.rule for f in delivery.message.findings] == ["E-01"]
        assert delivery.message.document is None
        assert await lv.content(delivery) == [octets or b" "]


async def test_fifty_megabytes_of_xml(tmp_path):
    """Far beyond what is judged: received, not read, and not kept in memory a second time."""
    row = b"<b>" + os.urandom(2 << 20).hex().encode() + b"</b>"
    octets = b"<a>" + row * 13 + b"</a>"  # what repeats is further back than gzip looks
    assert len(octets) > 50 << 20
    held = []
    keep = advice.Leading.keep

    def watched(self, block):
        keep(self, block)
        held.append(len(self.octets))

    async with world(tmp_path / "lv") as lv:
        sent = asking(lv, octets)
        with mock.patch.object(advice.Leading, "keep", watched):
            check_receipt(await lv.give(sent), sent)
        (delivery,) = await lv.inbox()
        assert [f.rule for f in delivery.message.findings] == ["E-00"]
        assert "larger than 1 MiB" in delivery.message.findings[0].message
        assert max(held) == advice.MAX_DOCUMENT + 1


@pytest.mark.parametrize("trouble", [ValueError("boom"), RecursionError(), MemoryError()])
async def test_a_mistake_of_ours_costs_no_message(tmp_path, trouble):
    async with world(tmp_path / "lv") as lv:
        with mock.patch.object(advice, "read", side_effect=trouble):
            sent = asking(lv)
            check_receipt(await lv.give(sent), sent)
        (finding,) = (await stored(lv)).findings
        assert finding.rule == "E-00" and finding.message == "not judged: an error of the gateway"


async def test_advice_that_takes_too_long_is_not_waited_for(tmp_path):
    async with world(tmp_path / "lv") as lv:
        stuck = asyncio.Event()
        with mock.patch.object(advice, "SECONDS", 0.05), mock.patch.object(
            lv.gateway._rooms.cpu.__class__, "run", lambda *_: stuck.wait()
        ):
            sent = asking(lv, question() + b"<!--" + b"x" * advice.INLINE + b"-->")
            check_receipt(await lv.give(sent), sent)
        (finding,) = (await stored(lv)).findings
        assert finding.message == "not judged: it took too long"


async def test_a_store_that_cannot_be_asked_leaves_the_rest_judged(tmp_path):
    async def nobody(*_, **__):
        await asyncio.Event().wait()

    async with world(tmp_path / "lv") as lv:
        with mock.patch.object(lv.store, "asked", nobody), mock.patch.object(advice, "PATIENCE", 0.05):
            sent = asking(lv, conversation_id="x")
            check_receipt(await lv.give(sent), sent)
        assert ids(await stored(lv)) == ["H-13"]


@pytest.mark.parametrize("size", [0, 40_000, 700_000], ids=["inline", "in a thread", "large"])
async def test_documents_of_every_size_are_judged(tmp_path, size):
    """Padding does not matter, and neither does the way the parts take through the gateway."""
    async with world(tmp_path / "lv") as lv:
        octets = question() + b"<!--" + uuid.uuid4().hex.encode() * (size // 32) + b"-->"
        sent = asking(lv, octets, more=[("application/pdf", uuid.uuid4().bytes * (1 + size))], conversation_id="x")
        check_receipt(await lv.give(sent), sent)
        message = await stored(lv)
        assert ids(message) == ["H-13", "H-24"] and message.document["kind"] == "request"


# -- an exchange ---------------------------------------------------------------------------


async def ask(lv, id, **more):
    return await lv.submit(
        ((question(id=id), REGREP),),
        properties=tuple(PropertyValue(p.name, p.value, p.type) for p in corners(ER, EP)),
        **more,
    )


def reply(lv, asked, octets, cid="certificate@ee.example", **header):
    message = dict(
        action="ExecuteQueryResponse", conversation_id=asked.conversation_id, properties=corners(EP, ER),
        cids=["response@ee.example", cid],
    )  # fmt: skip
    return lv.peer.message([(REGREP, octets), ("application/pdf", b"%PDF")], **message | header)


async def test_an_answer_is_held_against_its_request(tmp_path):
    async with world(tmp_path / "lv") as lv:
        id = uuid.uuid4()
        asked = await ask(lv, id)
        assert asked.findings == ()
        await lv.give(reply(lv, asked, answer(id)))
        await lv.give(reply(lv, asked, answer(id), conversation_id=str(UUID(int=7)), properties=corners(ER, EP)))
        await lv.give(reply(lv, asked, answer(uuid.uuid4())))
        await lv.give(reply(lv, asked, answer(id), cid="other@ee.example"))
        found = [[f.rule for f in d.message.findings] for d in await lv.inbox()]
        assert found == [[], ["H-22", "H-23", "H-23"], ["E-06"], ["H-32", "H-32"]]


async def test_an_answer_of_ours_is_held_against_the_request(tmp_path):
    async with world(tmp_path / "lv") as lv:
        id = uuid.uuid4()
        sent = asking(lv, question(id=id), properties=corners(EP, ER))
        check_receipt(await lv.give(sent), sent)

        async def answering(conversation):
            parts = (PartSubmission(REGREP, cid="r@lv.example"), PartSubmission("application/pdf", cid="c@lv.example"))
            return await lv.submit(
                ((answer(id, cid="c@lv.example"), REGREP), (b"%PDF", "application/pdf")), parts=parts,
                action="ExecuteQueryResponse", conversation_id=conversation,
                properties=tuple(PropertyValue(p.name, p.value, p.type) for p in corners(ER, EP)),
            )  # fmt: skip

        wanted = {p.name: p.value for p in sent.message.properties}["ExchangeId"]
        assert wanted == EXCHANGE
        assert (await answering(sent.message.conversation_id)).findings == ()
        assert [f.rule for f in (await answering(str(UUID(int=7)))).findings] == ["H-22"]


async def test_a_request_that_comes_twice(tmp_path):
    """[oots 7.5 (6)] The same request id in two messages: both delivered, the second flagged. One message
    sent again is a duplicate, not a replay."""
    async with world(tmp_path / "lv") as lv:
        octets = question()
        first, second = asking(lv, octets), asking(lv, octets)
        for sent in (first, first, second):
            check_receipt(await lv.give(sent), sent)
        assert [[f.rule for f in d.message.findings] for d in await lv.inbox()] == [[], ["E-04"]]


async def test_nothing_about_a_person_outlives_the_payload(tmp_path, caplog):
    """Neither findings nor what is kept of the document, neither events nor log lines [oots 5.4]."""
    person = birth.BIRTH.subject
    secrets = [person.family_name, person.given_name, person.date_of_birth, person.eidas_id, "Birth certificate"]
    async with world(tmp_path / "lv") as lv:
        id = uuid.uuid4()
        asked = await ask(lv, id, conversation_id="x")
        await lv.give(reply(lv, asked, answer(id), cid="other@ee.example", properties=corners(ER, EP)))
        await lv.give(asking(lv, conversation_id="y"))
        told = []
        for message in await lv.store.messages(MessageFilter()):
            assert message.findings and message.document
            told += [message.findings, message.document, await lv.store.events(message=message.id)]
        text = repr(told) + caplog.text + repr([getattr(record, "fields", "") for record in caplog.records])
        assert len(told) == 9 and "H-13" in text and not [secret for secret in secrets if secret in text]


# -- outbound ------------------------------------------------------------------------------

REFUSE = '[overrides."AP_EE_01:ExecuteQueryRequest"]\nrules = "refuse"'


async def test_by_default_a_breach_is_sent_and_told(tmp_path):
    async with world(tmp_path / "lv") as lv:
        submitted = await lv.submit(((b"<query/>", REGREP),), conversation_id="x")
        assert [f.rule for f in submitted.findings] == ["E-01", "H-13"]
        view = await lv.view(submitted)
        assert view.findings == submitted.findings
        await lv.send_due()
        assert (await lv.view(submitted)).state == "ACKNOWLEDGED"
        [(_, _, kind, _, data), *_] = await lv.store.events(message=UUID(submitted.id))
        assert (kind, data) == ("message.accepted", {"findings": 2})


async def test_refuse_holds_back_what_is_fatal(tmp_path):
    async with world(tmp_path / "lv", more=REFUSE) as lv:
        with pytest.raises(RulesBroken) as refused:
            await lv.submit(((question(), REGREP),), conversation_id="x")
        assert [f.rule for f in refused.value.findings] == ["H-13", "E-05", "E-05"]
        assert "R-EDM-ebMS-017" in str(refused.value) and "E-05" not in str(refused.value)
        assert await lv.nothing_stored()
        # A warning refuses nothing: the corners are not those of the document.
        submitted = await lv.submit(((question(), REGREP),))
        assert [(f.rule, f.severity) for f in submitted.findings] == [("E-05", "warning"), ("E-05", "warning")]
        # Nor does what was not judged.
        large = await lv.submit(((b"<" * (advice.MAX_DOCUMENT + 1), REGREP),))
        assert [f.rule for f in large.findings] == ["E-00"]


async def test_refuse_does_not_refuse_a_repetition(tmp_path):
    """A producer that lost our answer sends the same request document again, under the same key."""
    async with world(tmp_path / "lv", more=REFUSE) as lv:
        octets = question()
        submission = Submission(
            to_party=PartyRef(EE.value), action="ExecuteQueryRequest", parts=(PartSubmission(REGREP),),
            properties=tuple(PropertyValue(p.name, p.value, p.type) for p in corners(ER, EP)),
        )  # fmt: skip

        async def content(_):
            yield octets

        first = await lv.door.submit(CALLER, submission, content, idempotency_key="1")
        again = await lv.door.submit(CALLER, submission, content, idempotency_key="1")
        assert not first.replayed and again.replayed and again.id == first.id
        assert first.findings == again.findings == ()


async def test_refuse_leaves_nothing_of_a_large_submission(tmp_path):
    async with world(tmp_path / "lv", more=REFUSE) as lv:
        content = uuid.uuid4().bytes * 100_000
        with pytest.raises(RulesBroken):
            await lv.submit(((question(), REGREP), (content, "application/pdf")))
        assert await lv.nothing_stored() and not lv.store._chunks


async def test_a_dry_run_says_what_would_be_sent_and_stores_nothing(tmp_path):
    async with world(tmp_path / "lv") as lv:
        submission = Submission(
            to_party=PartyRef(EE.value), action="ExecuteQueryRequest", parts=(PartSubmission(REGREP, cid="q@lv.example"),),
            message_id="1@lv.example", conversation_id="x",
            properties=tuple(PropertyValue(p.name, p.value, p.type) for p in corners(ER, EP)),
        )  # fmt: skip
        octets = question()

        async def content(number):
            for start in range(0, len(octets), 1000):
                yield octets[start : start + 1000]

        found = await lv.door.validate(CALLER, submission, content)
        assert not found.valid and [f.rule for f in found.findings] == ["H-13"]
        assert (found.pmode, found.profile, found.rules, found.line) == (
            "AP_LV_01:AP_EE_01:ExecuteQueryRequest", "oots/2.0", "advise", "2.0",
        )  # fmt: skip
        (part,) = found.parts
        assert part.compressed and part.size == len(octets) > part.wire_size > 0
        assert await lv.nothing_stored()
        # The very header that is sent, but for the time.
        await lv.door.submit(CALLER, submission, content)
        await lv.send_due()
        envelope = lv.listener.received[0][1]
        head, _, rest = found.header.partition("<eb:Timestamp>")
        assert head.encode() in envelope and rest.partition("</eb:Timestamp>")[2].encode() in envelope


async def test_a_dry_run_refuses_what_submit_refuses(tmp_path):
    async with world(tmp_path / "lv", more=REFUSE) as lv:

        async def content(_):
            yield b"<query/>"

        async def run(**more):
            fields = dict(to_party=PartyRef(EE.value), action="ExecuteQueryRequest", parts=(PartSubmission(REGREP),),
                          properties=tuple(PropertyValue(p.name, p.value, p.type) for p in corners(ER, EP)))  # fmt: skip
            return await lv.door.validate(CALLER, Submission(**fields | more), content)

        with pytest.raises(RulesBroken):
            await run()
        with pytest.raises(SubmissionRefused) as refused:
            await run(to_party=PartyRef("AP_EE_02"))
        assert refused.value.field == "to_party"
        with pytest.raises(SubmissionRefused):
            await run(properties=())
        assert await lv.nothing_stored()


# -- property types, end to end --------------------------------------------------------------

TYPED = (
    PropertyValue("originalSender", "C1", LV.type),
    PropertyValue("finalRecipient", "C4", "urn:cef.eu:names:identifier:EAS:0191"),
    PropertyValue("ExchangeId", EXCHANGE),
    PropertyValue("SpecificationId", "oots-edm:v2.0", "urn:ā & \"ž\" <\u2028>"),
    PropertyValue("note", "a  b\tc", "two  words\tand a tab"),
    PropertyValue("empty", "x", ""),
)


async def test_types_leave_as_they_were_given(tmp_path):
    async with world(tmp_path / "lv") as lv:
        part = PartSubmission(REGREP, properties=(PropertyValue("PayloadName", "ā.xml", "urn:type:ā"), PropertyValue("n", "1")))
        submitted = await lv.submit(((question(), REGREP),), parts=(part,), properties=TYPED)
        expected = tuple(PropertyValue(p.name, p.value, p.type or None) for p in TYPED)
        assert (await lv.view(submitted)).properties == expected
        await lv.send_due()
        message, _, _ = lv.peer.receive(*lv.listener.received[0])
        assert [(p.name, p.value, p.type) for p in message.properties] == [(p.name, p.value, p.type) for p in expected]
        assert [(p.name, p.type) for p in message.parts[0].properties] == [
            ("PayloadName", "urn:type:ā"), ("n", None), ("MimeType", None), ("CompressionType", None),
        ]  # fmt: skip


async def test_types_arrive_as_they_were_sent(tmp_path):
    async with world(tmp_path / "lv") as lv:
        properties = tuple(Property(p.name, p.value, p.type) for p in TYPED)
        typed = (Property("PayloadName", "ā.xml", "urn:type:ā"),)
        sent = asking(lv, properties=properties, part_properties=typed)
        check_receipt(await lv.give(sent), sent)
        (delivery,) = await lv.inbox()
        assert delivery.message.properties == tuple(PropertyValue(p.name, p.value, p.type or None) for p in TYPED)
        assert delivery.message.parts[0].properties == (
            PropertyValue("MimeType", REGREP), PropertyValue("PayloadName", "ā.xml", "urn:type:ā"),
        )  # fmt: skip
        assert b'type="urn:type:\xc4\x81"' in (await lv.store.message(UUID(delivery.message.id))).envelope


@pytest.mark.parametrize("found", [PropertyValue("a", "b", " t"), PropertyValue("a", "b", "t\n"), PropertyValue("a", " b")])
async def test_what_would_not_arrive_is_refused(tmp_path, found):
    async with world(tmp_path / "lv") as lv:
        with pytest.raises(SubmissionRefused) as refused:
            await lv.submit(properties=(*TYPED[:2], found))
        assert refused.value.field == f"properties[2].{'type' if found.type else 'value'}"


# -- property sets -----------------------------------------------------------------------------


@pytest.mark.parametrize("closed", [False, True])
async def test_property_sets_of_both_versions_side_by_side(tmp_path, closed):
    """Two or four properties are right either way; three only where the sets are open."""
    more = f"[overrides.AP_EE_01]\nclosed_properties = {str(closed).lower()}"
    async with world(tmp_path / "lv", more=more) as lv:
        two, four = corners(ER, EP, None), corners(ER, EP)
        for number, properties in enumerate((two, four, four[:3], (*four, Property("x", "y")))):
            ours = tuple(PropertyValue(p.name, p.value, p.type) for p in properties)
            sent = asking(lv, properties=properties)
            answered = await lv.give(sent)
            if number < 2 or not closed:
                check_receipt(answered, sent)
                await lv.submit(properties=ours)
            else:
                assert answered.code == "EBMS:0010" if number == 3 else "EBMS:0003"
                with pytest.raises(SubmissionRefused):
                    await lv.submit(properties=ours)


