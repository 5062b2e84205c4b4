"""What a refused message leaves on a real node: one security event, and not an octet of its payload."""

import asyncio
import hashlib
import os
import re
import shutil
import tempfile
from pathlib import Path

import aiohttp
import pytest

from gateway.store.embedded import running_dsn
from tests.failover.pair import Pair
from tests.peer import Authority, Keys, check_receipt, split

CANARY = b"canary-" + os.urandom(12).hex().encode()


@pytest.fixture(scope="module")
def pair():
    folder = Path(tempfile.mkdtemp(prefix="gateway-test-"))
    folder.chmod(0o711)
    found = Pair(folder)
    found.ee.start()
    yield found
    found.stop()
    shutil.rmtree(folder, ignore_errors=True)


def payload(size: int = 200) -> bytes:
    return b"<evidence>" + CANARY + os.urandom(size).hex().encode() + b"</evidence>"


def flipped(sent):
    octets = split(sent.content_type, sent.body)[1][0][1]
    return sent.body.replace(octets, octets[:-1] + bytes([octets[-1] ^ 1]))


def spoilt(pair) -> dict:
    """Refused messages, small and large; the large ones reach spool and open transaction first."""
    peer = pair.peer
    small, large = [("application/xml", payload())], [("application/xml", payload(900_000))]
    stranger = Keys.make("AP_FI_01", "rsa", Authority())
    found = {}
    for size, parts in (("small", small), ("large", large)):
        found[f"{size}: flipped bit"] = (s := peer.message(parts)).content_type, flipped(s)
        found[f"{size}: wrong digest"] = (s := peer.message(parts, digest=lambda *_: b"\0" * 32)).content_type, s.body
        found[f"{size}: stranger"] = (s := peer.message(parts, key=stranger.signing_key)).content_type, s.body
        found[f"{size}: unsigned"] = (s := peer.message(parts)).content_type, re.sub(
            rb"<wsse:Security .*</wsse:Security>", b"", s.body, flags=re.S)
        found[f"{size}: no corner"] = (s := peer.message(
            parts, properties=peer.header().properties[1:])).content_type, s.body
        found[f"{size}: cut off"] = (s := peer.message(parts)).content_type, s.body[: len(s.body) - 200]
        found[f"{size}: plain part"] = (s := peer.message(parts)).content_type, s.body.replace(
            split(s.content_type, s.body)[1][0][1], parts[0][1])
        found[f"{size}: damaged gzip"] = (s := peer.message(parts, compress=True, wire_octets=lambda o: o[:-3] + b"xyz",
                                          digest=lambda o, _: hashlib.sha256(o[:-3] + b"xyz").digest())
                                          ).content_type, s.body
    return found


async def post(pair, content_type: str, body: bytes) -> tuple[int, bytes]:
    async with aiohttp.ClientSession() as session:
        url = f"http://127.0.0.1:{pair.ee.as4}/as4"
        async with session.post(url, data=body, headers={"Content-Type": content_type}) as answer:
            return answer.status, await answer.read()


async def counts(pair) -> dict[str, int]:
    import asyncpg

    connection = await asyncpg.connect(running_dsn(pair.ee.folder / "data" / "postgres"))
    try:
        await connection.execute("SET search_path TO gateway")
        names = ("message", "part", "chunk", "job", "event", "attempt", "duplicate_seen")
        found = {name: await connection.fetchval(f"SELECT count(*) FROM {name}") for name in names}
        # What the watch tells of certificates, a few seconds after the start, has nothing to do with messages.
        found["event"] -= await connection.fetchval("SELECT count(*) FROM event WHERE type LIKE 'cert.%'")
        found["audit"] = await connection.fetchval("SELECT count(*) FROM audit")
        await connection.execute("CHECKPOINT")
        return found
    finally:
        await connection.close()


def found_in(folder: Path) -> list[Path]:
    """Files under a folder that hold the canary."""
    hits = []
    for path in folder.rglob("*"):
        if path.is_file() and CANARY in path.read_bytes():
            hits.append(path)
    return hits


async def test_a_refused_message_leaves_one_security_event(pair):
    before = await counts(pair)
    cases = spoilt(pair)
    texts: dict[bytes, set[bytes]] = {}
    for name, (content_type, body) in cases.items():
        status, answer = await post(pair, content_type, body)
        assert b"<eb:Error " in answer and b"Receipt" not in answer, (name, status, answer[:200])
        code = re.search(rb'errorCode="([^"]+)"', answer)[1]
        assert code != b"EBMS:0004", name
        shown = re.findall(rb"<eb:(?:Description|ErrorDetail)[^>]*>[^<]*", answer)
        if code in (b"EBMS:0101", b"EBMS:0102", b"EBMS:0103"):
            texts.setdefault(code, set()).add(b"|".join(shown))
        for word in (b"Traceback", b"/gateway/", b"lxml", b"cryptography", b"0.1.0", CANARY):
            assert word not in answer, (name, word)
        await asyncio.sleep(0.12)  # security events of one source are bounded to ten a second
    after = await counts(pair)
    assert {n: after[n] - before[n] for n in after if n != "audit"} == {n: 0 for n in after if n != "audit"}
    assert after["audit"] - before["audit"] == len(cases)
    assert all(len(shown) == 1 for shown in texts.values()), texts  # all causes of one code look alike
    assert found_in(pair.ee.folder) == []
    assert CANARY not in pair.ee.log.read_bytes()


async def test_what_is_accepted_is_sealed(pair):
    """The same canary in messages that are kept: readable through the API only."""
    for size in (200, 900_000):
        sent = pair.peer.message([("application/xml", payload(size))])
        status, answer = await post(pair, sent.content_type, sent.body)
        check_receipt(pair.peer.answer(status, "application/soap+xml", answer), sent)
    assert (await counts(pair))["message"] >= 2
    assert found_in(pair.ee.folder) == []
    client = pair.ee.client()
    deliveries = client.claim(limit=10)
    assert all(CANARY in client.payload(d["message"]["id"], d["message"]["parts"][0]["cid"]) for d in deliveries)
    assert len(deliveries) >= 2


async def test_a_valid_message_is_taken_right_after_an_attack(pair):
    for _ in range(5):
        sent = pair.peer.message([("application/xml", payload())])
        await post(pair, sent.content_type, flipped(sent))
    good = pair.peer.message([("application/xml", payload())])
    status, answer = await asyncio.wait_for(post(pair, good.content_type, good.body), 1.0)
    check_receipt(pair.peer.answer(status, "application/soap+xml", answer), good)


async def test_copies_at_once_are_one_message(pair):
    """G04: one row, and receipts that are the same octet for octet."""
    sent = pair.peer.message([("application/xml", payload())])
    answers = await asyncio.gather(*(post(pair, sent.content_type, sent.body) for _ in range(12)))
    receipts = {body for status, body in answers if status == 200}
    assert len(receipts) == 1  # others, if any, were told to come again
    assert {status for status, _ in answers} <= {200, 503}
    listed = pair.ee.cli("messages", "list", "--json", "--limit", "500").stdout
    assert listed.count(sent.message.message_id) == 1
