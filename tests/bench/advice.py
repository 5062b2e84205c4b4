"""What the rules of OOTS cost: CPU of the advice about a message, beside that of receiving it, in one process.

The store is the one in memory, so that the share is of the gateway's own work; looking for a request in PostgreSQL
is one read by key and comes on top (0.06 ms of CPU, 0.2 ms of time, measured once).
"""

import asyncio
import tempfile
import time
import uuid
from datetime import UTC, datetime
from pathlib import Path

from gateway.msh import advice
from gateway.oots import birth, codes, samples
from tests.peer import Property, check_receipt
from tests.world import World, world

AT = datetime(2026, 9, 1, 8, 0, tzinfo=UTC)
REGREP = "application/x-ebrs+xml"
ROUNDS = 3
ER = ("LV-DEMO-ER-1", f"{codes.UNREGISTERED}LV")
EP = ("EE-DEMO-EP-1", f"{codes.EAS_SCHEME}0191")


def _request() -> dict:
    octets = samples.request(birth.BIRTH, id=uuid.uuid4(), at=AT).encode()
    return {"payloads": [(REGREP, octets)], "properties": _properties(ER, EP)}


def _response(count: int, size: int) -> dict:
    """A response with so many documents, padded to `size` octets."""
    documents = tuple(
        samples.Document(cid=f"d{n}@ee.example", title="Certificate", evidence_id=uuid.uuid4(), issued_on="2026-09-01")
        for n in range(count)
    )
    octets = samples.response(
        birth.BIRTH, request_id=f"urn:uuid:{uuid.uuid4()}", response_id=uuid.uuid4(), at=AT, documents=documents
    ).encode()
    octets += b"<!--" + b" " * max(0, size - len(octets) - 7) + b"-->"
    return {
        "payloads": [(REGREP, octets), *(("application/pdf", b"%PDF") for _ in documents)],
        "action": codes.RESPONSE, "properties": _properties(EP, ER),
        "cids": ["response@ee.example", *(document.cid for document in documents)],
    }  # fmt: skip


def _properties(sender: tuple[str, str], recipient: tuple[str, str]) -> tuple[Property, ...]:
    return (
        Property("originalSender", *sender), Property("finalRecipient", *recipient),
        Property(codes.EXCHANGE_ID, str(uuid.uuid4())), Property(codes.SPECIFICATION_ID, codes.EDM_2_0),
    )  # fmt: skip


async def _measure(lv: World, make, count: int) -> dict:
    """Milliseconds of CPU a message; the best of some rounds, because whatever else runs only adds."""
    spent = [0.0]
    advise = advice.Adviser.advise

    async def watched(self, *given):
        began = time.process_time()
        try:
            return await advise(self, *given)
        finally:
            spent[0] += time.process_time() - began

    best = (float("inf"), float("inf"))
    advice.Adviser.advise = watched
    try:
        for _ in range(ROUNDS):
            given = [make() for _ in range(count)]
            sent = [lv.peer.message(one.pop("payloads"), **one) for one in given]
            spent[0], began = 0.0, time.process_time()
            answers = [await lv.raw(one.content_type, one.body) for one in sent]
            whole = time.process_time() - began
            best = min(best, (whole / count * 1e3, spent[0] / count * 1e3))
        status, headers, body = answers[-1]
        check_receipt(lv.peer.answer(status, headers["content-type"], body), sent[-1])
    finally:
        advice.Adviser.advise = advise
    whole, ours = best
    return {"advice_ms": round(ours, 3), "receive_ms": round(whole, 3), "share": round(ours / whole, 3)}


async def _all(count: int) -> dict:
    async def nobody(*_, **__) -> list:
        return []

    with tempfile.TemporaryDirectory() as folder:
        async with world(Path(folder) / "lv") as lv:
            lv.store.asked = nobody  # in memory it would look through everything
            return {
                "request of 3 kB": await _measure(lv, _request, count),
                "response of 3 kB, 1 document": await _measure(lv, lambda: _response(1, 0), count),
                "response of 100 kB, 62 documents": await _measure(lv, lambda: _response(62, 100_000), max(1, count // 10)),
            }


def bench_advice(count: int) -> dict:
    """The figures, by kind of message."""
    return asyncio.run(_all(count))
