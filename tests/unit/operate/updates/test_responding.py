"""A partner asks us to take its next certificate: from its message to our answer."""

import datetime

import msgspec
import pytest

from gateway.as4 import ns
from gateway.as4.units import AgreementRef, Receipt
from gateway.as4.updates.documents import CertificateDigest, CertificateUpdate, UpdateException, UpdateResponse
from gateway.operate.updates import deciding
from tests.peer import Authority, Keys
from tests.updating import AGREEMENT, ask, partner, renewed, request, run, settle, updates_world

UTC = datetime.UTC


async def rows(w):
    return await w.store.updates()


async def test_a_renewal_is_taken_at_once_and_answered(tmp_path):
    async with updates_world(tmp_path) as w:
        new = renewed(w)
        document = request(w, new.signing)
        sent, answer = await ask(w, document)
        assert isinstance(answer.unit, Receipt)
        [row] = await rows(w)
        assert (row.state, row.actor, row.answered_at is not None) == ("TAKEN", "rule", True)
        pinned = partner(await settle(w))
        assert pinned.next == new.signing and w.peer.keys.signing in pinned.signing and new.signing in pinned.signing
        [(message, said)] = w.answers
        assert said == UpdateResponse(id=said.id, reference=document.id, created_at=said.created_at,
                                      current=AgreementRef(AGREEMENT), updated=AgreementRef(f"{AGREEMENT}:2"))
        assert (message.action, message.ref_to_message_id, message.conversation_id) == (
            "ConfirmCertificateUpdate", sent.message.message_id, sent.message.conversation_id)
        assert (message.from_role, message.to_role) == (ns.ROLE_RESPONDER, ns.ROLE_INITIATOR)
        # No backend sees any of it; the next certificate signs from now on, and the old one still does.
        assert await w.inbox() == []
        for key in (new.signing_key, None):
            assert isinstance((await w.give(w.peer.message(key=key))).unit, Receipt)
        kinds = [e.kind for e in await w.store.audit_entries(limit=100)]
        assert [k for k in kinds if k.startswith("update.")] == ["update.received", "update.approved", "update.taken"]
        # The files of this node were those in force, and are again.
        from gateway import app

        assert app.load_bundle(w.gateway._rooms.config).digest == (await w.store.active_agreements()).sha256.hex()
        taken = next(e for e in await w.store.audit_entries(limit=100) if e.kind == "update.taken")
        assert taken.actor == "rule" and taken.detail["certificates_sha256"] == list(row.certificates)


async def test_without_updates_in_the_agreement_there_is_no_such_service(tmp_path):
    from tests.world import world

    async with world(tmp_path) as w:
        sent = w.peer.message([("application/xml", b"<au/>")], action=ns.UPDATE_ACTION, properties=(),
                              from_role=ns.ROLE_INITIATOR, to_role=ns.ROLE_RESPONDER)
        assert (await w.give(sent)).code == "EBMS:0010"
        assert await w.nothing_stored() and await rows(w) == []
        assert await w.gateway._workers._pushing() == ()  # and nobody looks for any
    async with updates_world(tmp_path / "on") as w:
        assert await w.gateway._workers._pushing() == ("agreement-update",)


# -- a stolen key -----------------------------------------------------------------------------

THIEF = Authority()  # has the name of the CA, and another key


def other_ca(w):
    return request(w, renewed(w, authority=THIEF).signing, chain=(THIEF.certificate,))


def other_subject(w):
    return request(w, renewed(w, name="AP_EVIL_01").signing)


def no_proof(w):
    return request(w, renewed(w).signing, chain=())


@pytest.mark.parametrize("made", [other_ca, other_subject, no_proof])
async def test_a_stolen_key_installs_nothing_by_itself(tmp_path, made):
    """The message is signed with the key that is to be replaced: right in every way, and possibly a thief's."""
    async with updates_world(tmp_path, approve="auto") as w:
        before = await settle(w)
        document = made(w)
        _, answer = await ask(w, document)
        assert isinstance(answer.unit, Receipt)
        [row] = await rows(w)
        assert row.state == "WAITING" and row.detail and w.answers == []
        assert await settle(w) == before and (await w.store.active_agreements()).number == 1
        # What he brought along is believed by nobody.
        stolen = document.updates[0].certificate
        assert all(stolen not in (*p.signing, p.encryption) for p in (await settle(w)).parties)


async def test_whoever_approves_names_the_fingerprint_and_himself(tmp_path):
    from gateway.errors import ConfigError, NotPossible

    async with updates_world(tmp_path) as w:
        new = renewed(w, name="AP_EE_01 new", authority=THIEF)
        await ask(w, request(w, new.signing, chain=(THIEF.certificate,)))
        [row] = await rows(w)
        for wrong in ((), ("ab" * 32,), (row.certificates[0][:10],)):
            with pytest.raises(ConfigError):
                await deciding.approve(w.store, str(row.id), fingerprints=wrong, actor="ann@lv", reason="called them")
        with pytest.raises(ConfigError):
            await deciding.approve(w.store, str(row.id), fingerprints=row.certificates, actor="ann@lv", reason=" ")
        colons = ":".join(row.certificates[0][n : n + 2] for n in range(0, 20, 2)).upper()
        await deciding.approve(w.store, str(row.id)[:8], fingerprints=(colons,), actor="ann@lv", reason="called them")
        with pytest.raises(NotPossible):
            await deciding.reject(w.store, str(row.id), actor="bob@lv", reason="no")
        await run(w)
        assert partner(await settle(w)).next == new.signing
        assert [type(said) for _, said in w.answers] == [UpdateResponse]
        audit = {e.kind: e for e in await w.store.audit_entries(limit=100)}
        assert audit["update.approved"].actor == "ann@lv" == audit["update.taken"].actor
        assert audit["update.approved"].detail["certificates_sha256"] == list(row.certificates)
        assert "subject" in audit["update.approved"].detail["waited_for"]
        assert audit["agreements.proposed"].detail["next_sign_sha256"] == row.certificates[0]


async def test_where_the_agreement_says_operator_every_request_waits(tmp_path):
    async with updates_world(tmp_path, approve="operator") as w:
        document = request(w, renewed(w).signing)
        await ask(w, document)
        [row] = await rows(w)
        assert (row.state, row.detail) == ("WAITING", "the agreement lets an operator decide")
        await deciding.reject(w.store, str(row.id), actor="ann@lv", reason="not before our holidays")
        await run(w)
        [(message, said)] = w.answers
        assert message.action == "RejectCertificateUpdate" and isinstance(said, UpdateException)
        assert said.reference == document.id and said.errors[0].description == "not before our holidays"
        assert said.errors[0].short == "NotApproved" and partner(await settle(w)).next is None
        noted = [(entry.kind, entry.actor) for entry in await w.store.audit_entries(limit=500)]
        assert ("update.refused", "ann@lv") in noted


async def test_nobody_decided_before_respond_by(tmp_path):
    async with updates_world(tmp_path, approve="operator") as w:
        soon = datetime.datetime.now(UTC) + datetime.timedelta(seconds=0.8)
        await ask(w, request(w, renewed(w).signing, respond_by=soon))
        [row] = await rows(w)
        assert row.state == "WAITING" and w.answers == []
        w.store._updates[row.id] = msgspec.structs.replace(row, due_at=row.created_at)  # the time has come
        await run(w)
        assert [said.errors[0].code for _, said in w.answers] == ["AU:0005"]


# -- refused ------------------------------------------------------------------------------------


def _days(days):
    return datetime.datetime.now(UTC) + datetime.timedelta(days=days)


def _weak(w):
    from cryptography.hazmat.primitives.asymmetric import rsa

    return request(w, w.authority.issue("AP_EE_01", rsa.generate_private_key(65537, 1024).public_key()))


@pytest.mark.parametrize(("code", "made"), [
    pytest.param("AU:0001", lambda w: request(w, renewed(w).signing, current=AgreementRef("urn:other")), id="agreement"),
    pytest.param("AU:0002", lambda w: request(w, renewed(w).signing, updated=AgreementRef(AGREEMENT)), id="same name"),
    pytest.param("AU:0004", lambda w: request(w, renewed(w).signing, old=w.authority.certificate), id="not in use"),
    pytest.param("AU:0005", lambda w: request(w, renewed(w).signing, respond_by=_days(-1)), id="too late"),
    pytest.param("AU:0006", lambda w: request(w, renewed(w).signing, activate_by=_days(-1)), id="activation passed"),
    pytest.param("AU:0003", lambda w: request(w, renewed(w).signing, expire_by=_days(-1)), id="expired before it begins"),
    pytest.param("AU:0003", lambda w: request(w, w.peer.keys.signing), id="the same certificate"),
    pytest.param("AU:0007", lambda w: request(w, w.authority.issue("AP_EE_01", w.peer.keys.signing_private.public_key(),
                                                                  days=1, start=-3)), id="expired"),
    pytest.param("AU:0007", lambda w: request(w, w.authority.issue("AP_EE_01", w.peer.keys.signing_private.public_key(),
                                                                  start=2)), id="not yet valid"),
    pytest.param("AU:0007", lambda w: request(w, w.authority.issue("AP_EE_01", w.peer.keys.signing_private.public_key(),
                                                                  "encrypt")), id="wrong use"),
    pytest.param("AU:0007", lambda w: request(w, w.authority.issue("AP_EE_01", w.peer.keys.signing_private.public_key(),
                                                                  ca=True), chain=()), id="CA as leaf"),
    pytest.param("AU:0007", _weak, id="weak"),
])  # fmt: skip
async def test_refused_with_the_code_that_says_why(tmp_path, code, made):
    async with updates_world(tmp_path) as w:
        document = made(w)
        await ask(w, document)
        [row] = await rows(w)
        [(message, said)] = w.answers
        assert (row.state, row.code, said.errors[0].code) == ("REFUSED", code, code)
        assert isinstance(said, UpdateException) and said.reference == document.id
        assert message.action == "RejectCertificateUpdate"
        assert said.errors[0].about in (None, "ur1") and said.errors[0].description
        assert (await w.store.active_agreements()).number == 1


async def test_a_certificate_that_begins_with_the_activation_is_taken(tmp_path):
    async with updates_world(tmp_path) as w:
        later = w.authority.issue("AP_EE_01", renewed(w).signing_private.public_key(), start=2)
        await ask(w, request(w, later, activate_by=_days(5)))
        assert [r.state for r in await rows(w)] == ["TAKEN"] and partner(await settle(w)).next == later


ORDERS = """
[[exchanges]]
action = "Order"
service = "urn:orders"
from_role = "urn:buyer"
to_role = "urn:seller"
properties = ["originalSender", "finalRecipient"]
"""


async def test_all_or_none(tmp_path):
    """Two updates, one of which cannot be: nothing is staged."""
    async with updates_world(tmp_path, profile="edelivery-as4/2.0", suite="ed25519", more=ORDERS) as w:
        w.peer.profile = "edelivery-as4/2.0"

        new = Keys.make("AP_EE_01", "ed25519", w.authority)
        both = (CertificateUpdate("s", CertificateDigest.of(w.peer.keys.signing), (new.signing, w.authority.certificate)),
                CertificateUpdate("e", CertificateDigest.of(w.peer.keys.encryption), (w.authority.certificate,)))
        await ask(w, request(w, new.signing, updates=both))
        assert [(r.state, r.code) for r in await rows(w)] == [("REFUSED", "AU:0007")]
        assert w.answers[0][1].errors[0].about == "e" and (await w.store.active_agreements()).number == 1
        good = (both[0], CertificateUpdate("e", CertificateDigest.of(w.peer.keys.encryption),
                                           (new.encryption, w.authority.certificate)))
        await ask(w, request(w, new.signing, updates=good))
        pinned = partner(await settle(w))
        assert (pinned.next, pinned.next_encryption) == (new.signing, new.encryption)
        assert pinned.encryption == w.peer.keys.encryption and (await w.store.active_agreements()).number == 2


async def test_the_agreement_ref_of_the_message_must_be_that_of_the_document(tmp_path):
    async with updates_world(tmp_path) as w:
        await ask(w, request(w, renewed(w).signing), agreement_ref=AgreementRef("urn:another"))
        assert w.answers[0][1].errors[0].short == "InvalidRequest"


async def test_what_cannot_be_read_is_receipted_and_put_aside(tmp_path):
    async with updates_world(tmp_path) as w:
        for octets in (b"<au/>", b"\x00", b"<!DOCTYPE x><x/>", b"<a>" * 90):
            _, answer = await ask(w, octets)
            assert isinstance(answer.unit, Receipt)
        await ask(w, request(w, renewed(w).signing), action=ns.UPDATE_CONFIRMED)
        assert await rows(w) == [] and w.answers == [] and await w.store.backlog() == {}
        kinds = [e.kind for e in await w.store.audit_entries(limit=100)]
        assert kinds.count("update.unusable") == 5


# -- more than once -----------------------------------------------------------------------------


async def test_the_same_request_twice_is_taken_once_and_answered_again(tmp_path):
    async with updates_world(tmp_path) as w:
        document = request(w, renewed(w).signing)
        first, _ = await ask(w, document)
        again = await w.give(first)  # octet for octet: a retry of the partner's
        assert isinstance(again.unit, Receipt)
        await run(w)
        assert len(w.answers) == 1
        second, _ = await ask(w, document)  # the same document in another message
        assert len(await rows(w)) == 1 and [type(said) for _, said in w.answers] == [UpdateResponse] * 2
        assert w.answers[0][1] == w.answers[1][1] and w.answers[1][0].ref_to_message_id == second.message.message_id
        assert (await w.store.active_agreements()).number == 2
        other = request(w, renewed(w, number=1).signing, id=document.id)  # another document under the same id
        await ask(w, other)
        assert len(await rows(w)) == 1 and len(w.answers) == 2


async def test_a_partner_cannot_bury_the_operator(tmp_path):
    from gateway.operate.updates.desk import MAX_OPEN

    async with updates_world(tmp_path, approve="operator") as w:
        new = renewed(w).signing
        for n in range(MAX_OPEN + 2):
            await ask(w, request(w, new, updated=AgreementRef(f"urn:x:{n}")))
        assert len(await rows(w)) == MAX_OPEN


# -- a process that dies -------------------------------------------------------------------------


class Died(BaseException):
    pass


@pytest.mark.parametrize("where", ["AU01", "AU02", "AU03", "AU04", "AU05"])
async def test_a_process_that_dies_at_any_point_costs_nothing(tmp_path, monkeypatch, where):
    from gateway.operate.updates import desk, work

    async with updates_world(tmp_path) as w:
        struck = []

        def point(name):
            if name == where and not struck:
                struck.append(name)
                raise Died

        for module in (desk, work):
            monkeypatch.setattr(module, "point", point)
        new = renewed(w)
        sent = w.peer.message([("application/xml", desk_write(request(w, new.signing)))], **HEADER)
        await w.give(sent)
        with pytest.raises(Died):
            await run(w)
        # Its claims run out, and another process goes on.
        for job in w.store._jobs.values():
            job.due_at, job.state = job.created_at, "READY" if job.state == "CLAIMED" else job.state
        w.store._updates = {id: msgspec.structs.replace(u, due_at=u.due_at and u.created_at)
                            for id, u in w.store._updates.items()}
        await run(w)
        assert struck == [where] and [r.state for r in await rows(w)] == ["TAKEN"]
        assert partner(await settle(w)).next == new.signing and (await w.store.active_agreements()).number == 2
        assert len({m.message_id for m, _ in w.answers}) == 1
        kinds = [e.kind for e in await w.store.audit_entries(limit=100) if e.kind.startswith("update.")]
        assert kinds == ["update.received", "update.approved", "update.taken"]


def desk_write(document):
    from gateway.as4.updates.writing import write

    return write(document)


from gateway.as4.units import Service  # noqa: E402

HEADER = {"service": Service(ns.UPDATE_SERVICE), "action": ns.UPDATE_ACTION, "properties": (),
          "from_role": ns.ROLE_INITIATOR, "to_role": ns.ROLE_RESPONDER}


async def test_nobody_else_can_have_what_is_for_the_gateway(tmp_path):
    from gateway import app
    from gateway.config import Config
    from gateway.errors import ConfigError
    from gateway.operate import backends

    async with updates_world(tmp_path) as w:
        with pytest.raises(ConfigError, match="the gateway itself"):
            await backends.create(w.store, "spy", "agreement-update")
    path = tmp_path / "other.toml"
    path.write_text('[backends.agreement-update]\nkind = "filesystem"\nfolder = "x"\n')
    with pytest.raises(ConfigError, match="own consumer"):
        app._backends(Config.load(path, environ={}), None)
