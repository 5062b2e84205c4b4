"""A gateway and a peer that has updates, for tests: what the peer asks, and what it is answered."""

import contextlib
import datetime
import functools
import uuid

import msgspec

from gateway.as4 import ns
from gateway.as4.units import AgreementRef, Service
from gateway.as4.updates.documents import CertificateDigest, CertificateUpdate, UpdateRequest, UpdateResponse
from gateway.as4.updates.reading import read
from gateway.as4.updates.writing import write
from tests.peer import Keys
from tests.world import world

UTC = datetime.UTC
AGREEMENT = "urn:agreements:lv-ee"
MORE = """
[parties.AP_EE_01.updates]
approve = "{approve}"
agreement = "{agreement}"
"""


@contextlib.asynccontextmanager
async def updates_world(folder, *, approve="auto", suite="rsa", more="", **options):
    table = MORE.format(approve=approve, agreement=AGREEMENT)
    async with world(folder, suite=suite, more=table + more, **options) as w:
        w.desk = w.gateway._backends["agreement-update"]
        w.answers = []

        def answer(content_type, body):
            message, contents, references = w.peer.receive(content_type, body)
            w.answers.append((message, read(contents[0])))
            return 200, "application/soap+xml; charset=UTF-8", w.peer.receipt_for(message, references)

        w.listener.answer = answer
        yield w


def renewed(w, *, name: str = "AP_EE_01", authority=None, number: int = 0) -> Keys:
    """New keys of the peer, certified as a renewal by its CA; `authority` and `name` make it something else. Made once
    a run for each `number`."""
    return _renewed(name, authority or w.authority, number)


@functools.cache
def _renewed(name, authority, _number) -> Keys:
    return Keys.make(name, "rsa", authority)


def request(w, new: bytes, **changes) -> UpdateRequest:
    old = changes.pop("old", w.peer.keys.signing)
    chain = changes.pop("chain", (w.authority.certificate,))
    return msgspec.structs.replace(
        UpdateRequest(
            id=str(uuid.uuid4()), created_at=datetime.datetime.now(UTC), current=AgreementRef(AGREEMENT),
            updated=AgreementRef(f"{AGREEMENT}:2"), respond_by=datetime.datetime.now(UTC) + datetime.timedelta(days=3),
            updates=(CertificateUpdate("ur1", CertificateDigest.of(old), (new, *chain)),),
        ), **changes)


async def ask(w, document, action=ns.UPDATE_ACTION, *, key=None, **header):
    """The peer sends a document; the gateway takes it and does what is due."""
    octets = document if isinstance(document, bytes) else write(document)
    answering = action not in (ns.UPDATE_ACTION, ns.TERMINATE_ACTION)
    roles = (ns.ROLE_RESPONDER, ns.ROLE_INITIATOR) if answering else (ns.ROLE_INITIATOR, ns.ROLE_RESPONDER)
    sent = w.peer.message([("application/xml", octets)], service=Service(ns.UPDATE_SERVICE), action=action, key=key,
                          from_role=roles[0], to_role=roles[1], properties=(), **header)
    answer = await w.give(sent)
    await run(w)
    return sent, answer


async def run(w):
    """Everything that is due: deliveries to the desk, its work, and what is to be sent."""
    for _ in range(8):
        for job in await w.store.claim("deliver", queues=("agreement-update",), worker="test", limit=10, lease=60):
            await w.gateway._workers._deliver(job)
        done = await w.desk.work.round()
        await w.send_due()
        if not done:
            return


async def settle(w):
    """The agreements in force in this process."""
    await w.gateway._rooms.revisions.look()
    return w.gateway._rooms.agreements.value.pmodes


def partner(pmodes):
    return next(p for p in pmodes.parties if p.name == "AP_EE_01")


__all__ = ["AGREEMENT", "UpdateResponse", "ask", "partner", "renewed", "request", "run", "settle", "updates_world"]
