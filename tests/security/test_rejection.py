"""REJ: what a refused message leaves behind, held against the real gateway [threats 1.0].

Nothing but one security event, a constant text to the partner, and a gateway that takes the
next message. `GATEWAY_SECURITY=full` looks for every spelling of a canary after every
attack and repeats the attacks; the default run does so once, at the end.
"""

import os
import re
import socket
import struct
import time

import pytest

from gateway import __version__
from gateway.as4.units import Error
from gateway.errors import EBMS_ERRORS
from tests.security.attacks import ATTACKS, HOSTILE, Shot, maker
from tests.security.site import printable, spellings

FULL = os.environ.get("GATEWAY_SECURITY") == "full"
ROUNDS = 5 if FULL else 1

#: CPU seconds and octets that one refusal may cost. The contract says 0.25 s and 32 MiB for a quiet machine of
#: our own; here a test runs beside others, and the accounting comes in hundredths of a second.
CPU, RSS = 0.5, 48 << 20

#: What would tell a partner about our insides.
INSIDES = re.compile(
    rb"Traceback|\.py\b|lxml|libxml|openssl|cryptography|asyncpg|postgres|hypercorn|/tmp|/usr|Error:|Exception|0x[0-9a-f]{6}|"
    + re.escape(__version__.encode()),
    re.IGNORECASE,
)
WHERE = re.compile(r"[\w:@/\[\]. #-]{1,80}")

_outcomes: dict[str, tuple] = {}


@pytest.fixture(scope="module", autouse=True)
def warm(site):
    """One message of each size first: what is loaded once is no cost of a refusal."""
    for size in (100, 3_000_000):
        for _ in range(4):
            site.accepted(site.peer.message([("application/octet-stream", os.urandom(size))]))


def settled(look, expected, seconds: float = 3.0) -> None:
    """What `look` sees is `expected`, at once or within `seconds`."""
    end = time.monotonic() + seconds
    while (seen := look()) != expected:
        assert time.monotonic() < end, seen
        time.sleep(0.05)


def strike(site, attack) -> tuple[Shot, object, object]:
    """Carry the attack out and hold the contract against what is left."""
    made = maker(site.peer, site.listener.port)
    shot = made.shot(attack.make(made))
    source = site.source()
    counts, usage = site.counts(), site.usage()
    reply = site.post(shot.content_type, shot.body, source=source)
    spent = site.usage()

    # 1, 2: nothing that anybody could see, and nothing of the payload anywhere.
    assert site.counts() == counts
    settled(site.open_spools, [])  # a worker hears of a connection that was cut a moment after us
    needles = [shot.canary, *([shot.packed] if shot.packed else [])]
    assert site.found(*needles, *(spellings(shot.canary) if FULL else ())) == []
    # 3: one security event, bounded and inert.
    events = site.audit(source)
    assert [event["kind"] for event in events] == ["message.refused"]
    assert len(events[0]["detail"]) < 2000 and len(events[0]["subject"]) <= 255
    assert printable(events[0]["detail"]) and printable(events[0]["subject"])
    assert attack.code in events[0]["detail"]
    # 4: a signed Error with the text of its code, and nothing of ours.
    assert reply.status == attack.status, reply
    # Certificates, digests and signatures are base64, in which any word may stand by chance.
    words = re.sub(rb">[^<>]*</(wsse:BinarySecurityToken|ds:DigestValue|ds:SignatureValue)>", b">", reply.body)
    assert not INSIDES.search(words) and "server" not in reply.headers
    assert shot.canary not in reply.body
    answer = None
    if attack.signed:
        answer = site.read(reply)
        assert isinstance(answer.unit, Error) and answer.signer == site.peer.partner_signing[0]
        [error] = answer.unit.errors
        assert error.code == attack.code
        assert error.description == EBMS_ERRORS[attack.code].wire
        assert error.detail is None or WHERE.fullmatch(error.detail)
    else:
        assert b"Fault" in reply.body
    # 5: a bounded cost.
    assert spent.cpu - usage.cpu <= CPU
    assert spent.rss - usage.rss <= RSS
    # 6: the next one is taken.
    assert site.accepted(site.peer.message()) < 1.0
    return shot, reply, answer


def outcome(site, attack):
    if attack.id not in _outcomes:
        _outcomes[attack.id] = strike(site, attack)
    return _outcomes[attack.id]


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda a: a.id)
def test_a_refusal_leaves_one_event_and_nothing_else(site, attack):
    outcome(site, attack)
    for _ in range(ROUNDS - 1):
        strike(site, attack)


@pytest.mark.parametrize("code", ["EBMS:0101", "EBMS:0102", "EBMS:0103"])
def test_all_causes_of_a_security_error_look_alike(site, code):
    """The oracle rule: the partner learns the code, and not which of its causes it was."""
    attacks = [attack for attack in ATTACKS if attack.code == code]
    assert len(attacks) >= 4
    seen = set()
    for attack in attacks:
        _, reply, answer = outcome(site, attack)
        [error] = answer.unit.errors
        # All of the answer but what must differ: ids, time, digests, signature.
        text = re.sub(rb">[^<>]*</(eb:MessageId|eb:Timestamp|eb:RefToMessageId|ds:DigestValue|ds:SignatureValue)>", rb">\1", reply.body)
        text = re.sub(rb'(refToMessageInError|wsu:Id|URI)="[^"]*"', rb"\1", text)
        headers = tuple((k, v) for k, v in reply.headers.items() if k not in ("date", "content-length"))
        seen.add((reply.status, headers, text, error.description, error.detail))
    assert len(seen) == 1


def test_nobody_was_called(site):
    """A02, D12: no entity, no reference and no payload made the gateway connect to anything."""
    outcome(site, _named("external entity"))
    assert site.listener.connections == 0


def test_what_is_looked_for_can_be_found(site):
    """The search sees the database, its log and ours: a MessageId is there, in each; a stored payload is not."""
    canary = b"CANARY-stored-" + os.urandom(8).hex().encode()
    sent = site.peer.message([("text/plain", canary), ("application/octet-stream", canary * 100_000)], compress=False)
    site.accepted(sent)
    files = site.found(sent.message.message_id.encode())
    assert any("pg_wal" in f for f in files) and any("/base/" in f for f in files) and any("log.jsonl" in f for f in files)
    assert site.found(*spellings(canary)) == []


def test_nothing_of_any_attack_is_left(site):
    """All of it again, at the end, in every spelling: what was overwritten meanwhile would have been found before."""
    assert site.found(*spellings(b"CANARY-")) == []


def test_what_a_terminal_would_obey_is_not_in_log_or_audit(site):
    """M02: control characters, bidirectional overrides, over-long values."""
    for name in ("hostile party", "long MessageId"):
        outcome(site, _named(name))
    log = site.logged()
    assert not {*"\u009b\u202e\x1b"} & set(log)
    assert max(map(len, log.splitlines())) < 5000
    assert "x" * 600 not in log
    rows = [row for row in site.sql("SELECT * FROM audit") if "jndi" in row["detail"]]
    assert rows and all(HOSTILE not in row["detail"] and printable(row["detail"]) for row in rows)


# -- what ends before there is anybody to answer ------------------------------------------


def test_an_upload_that_breaks_off_leaves_nothing(site):
    """The connection goes in the middle of a large part that is on disk already. Nobody is left to hear an
    answer and nothing was refused: the partner sends again, so there is no security event either."""
    made = maker(site.peer, 0)
    shot = made.shot(made.on_the_way(1_800_000).out)
    counts, source = site.counts(), site.source()
    for _ in range(3):
        with site.connect(source) as connection:
            connection.sendall(site.head(shot.content_type, len(shot.body)) + shot.body[: len(shot.body) * 3 // 4])
            _until(site.open_spools)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, no goodbye
    _until(lambda: not site.open_spools())
    assert site.counts() == counts and site.audit(source) == []
    assert site.found(shot.canary, shot.packed) == []
    reply = site.post(shot.content_type, shot.body, source=source)
    assert reply.status == 200 and site.counts()["message"] == counts["message"] + 1


def test_a_slow_body_is_cut_off(site):
    """H01: a drip holds no worker and leaves nothing. (The deadline of this site is 3 s.)"""
    made = maker(site.peer, 0)
    shot = made.shot(made.on_the_way(3000).out)
    counts, source, began = site.counts(), site.source(), time.monotonic()
    with site.connect(source) as connection:
        cut = len(shot.body) - 1000
        connection.sendall(site.head(shot.content_type, len(shot.body)) + shot.body[:cut])
        connection.settimeout(0.1)
        answer = b""
        for octet in shot.body[cut:]:
            try:
                answer = connection.recv(1000)
                break
            except TimeoutError:
                connection.sendall(bytes([octet]))
        assert site.accepted(site.peer.message()) < 1.0
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - began < 10
    assert site.counts()["part"] - counts["part"] == site.counts()["message"] - counts["message"]
    assert site.audit(source) == [] and site.found(shot.canary, shot.packed) == [] and site.open_spools() == []
    assert f'"status":408,"source":"{source}"' in site.logged()


def _named(id: str):
    return next(attack for attack in ATTACKS if attack.id == id)


def _until(met, seconds: float = 5.0) -> None:
    end = time.monotonic() + seconds
    while not met():
        assert time.monotonic() < end
        time.sleep(0.02)
