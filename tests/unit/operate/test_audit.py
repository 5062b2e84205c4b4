"""The audit's exports and anchors: whatever is changed is found, and said where."""

import datetime
import json
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gateway import metrics
from gateway.clock import SystemClock
from gateway.errors import ConfigError, KeyUnavailable, NotFound
from gateway.keys.keyring import Keyring, SoftwareSigningKey
from gateway.operate import anchors, audit
from gateway.store.api import AuditEntry
from gateway.store.chain import BEGINNING, Link, hash_of
from gateway.store.memory import MemoryStore
from tests import pki

NOW = datetime.datetime(2026, 11, 21, 12, tzinfo=datetime.UTC)
LATER = NOW + datetime.timedelta(days=1)


class Clock(SystemClock):
    def __init__(self, now):
        self.moment = now

    def now(self):
        return self.moment


def key_of(name):
    private = pki.key("ed25519", hash(name) % 1000)
    return SoftwareSigningKey(private, pki.Ca.root(name, private, key_usage=pki.SIGN).certificate)


OURS, STRANGER = key_of("AP_LV_01"), key_of("a stranger")
KNOWN = {anchors.fingerprint(OURS.certificate): OURS.certificate}


def keyring(*keys):
    return Keyring({None: keys}, {})


async def chain(count=8, *, anchored=(4,), key=OURS):
    """A store whose audit has so many rows; after some of them comes an anchor, which is a row, too."""
    store = MemoryStore(Clock(NOW))
    while (number := (await store.audit_head())[0]) < count:
        if number in anchored:
            await anchors.anchor(store, key, actor="node", now=NOW)
        else:
            await store.audit(AuditEntry(kind="k", actor="ķ\u2028", subject=f"s{number}", detail={"n": number, "t": "\"\n"}))
    return store


async def exported(store, *, key=OURS, after=0, now=LATER):
    return [line async for line in audit.export(store, keyring(key) if key else None, now=now, after=after)]


def links(lines):
    return [audit.read_line(line) for line in lines[1:]]


def rechained(rows, *, after=0, previous=BEGINNING):
    """Rows hashed anew, as somebody with the database would do it."""
    made = []
    for number, link in enumerate(rows, after + 1):
        previous = hash_of(previous, number, *link[1:6])
        made.append(Link(number, *link[1:6], previous))
    return made


async def test_an_export_says_that_it_is_whole():
    verdict = audit.verify_export(await exported(await chain()), known=KNOWN)
    assert verdict.intact and verdict.believed and (verdict.number, verdict.anchored) == (8, 8)
    assert verdict.signers == tuple(KNOWN)


async def test_an_export_is_json_that_tools_read():
    lines = [json.loads(line) for line in await exported(await chain())]
    assert lines[0]["number"] == 8 and lines[0]["hash"] == lines[-1]["hash"]
    assert [line["number"] for line in lines[1:]] == list(range(1, 9))
    assert lines[1]["detail"] == {"n": 0, "t": "\"\n"} and lines[1]["at"].endswith("Z")


async def test_an_empty_audit_is_exported_and_whole():
    verdict = audit.verify_export(await exported(MemoryStore(Clock(NOW))), known=KNOWN)
    assert verdict.intact and verdict.number == 0


TAMPERED = [
    pytest.param(lambda rows: [*rows[:2], rows[2].replace(b'"s2"', b'"sX"'), *rows[3:]], 3, id="edited"),
    pytest.param(lambda rows: [*rows[:2], *rows[3:]], 3, id="deleted"),
    pytest.param(lambda rows: [*rows[:3], rows[0], *rows[3:]], 4, id="inserted"),
    pytest.param(lambda rows: [*rows[:3], rows[2], *rows[3:]], 4, id="replayed"),
    pytest.param(lambda rows: [*rows[:2], rows[3], rows[2], *rows[4:]], 3, id="reordered"),
    pytest.param(lambda rows: rows[:-1], 8, id="last row cut off"),
    pytest.param(lambda rows: rows[:-3], 6, id="tail cut off"),
    pytest.param(lambda rows: rows[3:], 1, id="beginning cut off"),
    pytest.param(lambda rows: [*rows, rows[-1]], 9, id="one row more"),
    pytest.param(lambda rows: [*rows[:3], rows[3][:40]], 4, id="cut within a row"),
    pytest.param(lambda rows: [rows[0], b"\n", *rows[1:]], 2, id="an empty line"),
    pytest.param(lambda rows: [rows[0], b"x" * (audit.MAX_LINE + 2), *rows[1:]], 2, id="a line without end"),
    pytest.param(lambda rows: [rows[0].replace(b'"k"', b'"\\u006b"'), *rows[1:]], 1, id="the same in another spelling"),
    pytest.param(lambda rows: [rows[0].replace(b',"kind"', b', "kind"'), *rows[1:]], 1, id="a blank more"),
    pytest.param(lambda rows: [rows[0].replace(b'{"number":1', b'{"number":2,"number":1'), *rows[1:]], 1, id="a name twice"),
    pytest.param(lambda rows: [rows[0].replace(b'}\n', b',"x":1}\n'), *rows[1:]], 1, id="a field more"),
    pytest.param(lambda rows: [rows[0].replace(b"Z", b""), *rows[1:]], 1, id="no zone"),
    pytest.param(lambda rows: [b"\xff" + rows[0][1:], *rows[1:]], 1, id="not text"),
    pytest.param(lambda rows: [b"[" * 100_000 + b"\n", *rows[1:]], 1, id="deep"),
]


@pytest.mark.parametrize("key", [OURS, None], ids=["signed", "unsigned"])
@pytest.mark.parametrize(("spoil", "where"), TAMPERED)
async def test_tampering_is_found_and_placed(spoil, where, key):
    head, *rows = await exported(await chain(), key=key)
    verdict = audit.verify_export([head, *spoil(rows)], known=KNOWN if key else {})
    assert not verdict.intact and verdict.wrong == where, verdict


@pytest.mark.parametrize(("number", "where"), [(2, (1, 4)), (7, (5, 7))])
async def test_a_chain_that_was_hashed_anew_does_not_fit_its_signatures(number, where):
    """The strongest: everything from the edited row on is made to fit. Only who cannot sign is caught, and the place
    is known as well as the anchors are close."""
    store = await chain()
    rows = links(await exported(store))
    rows[number - 1] = rows[number - 1]._replace(subject="x")
    store._links = rechained(rows)
    unsigned = await exported(store, key=None)
    for lines in (unsigned, await exported(store, key=STRANGER)):
        verdict = audit.verify_export(lines, known=KNOWN)
        assert not verdict.intact and where[0] <= verdict.wrong <= where[1], verdict
    assert audit.verify_export(unsigned, known={}).intact is (number > 4)  # row 5, an anchor, names another hash of row 4


async def test_a_branch_of_the_chain_is_found_by_an_anchor_from_the_other():
    store = await chain(6, anchored=())
    kept = {6: anchors.Anchor(*(lambda n, h: (n, h.hex(), "2026-11-21T12:00:00.000000Z"))(*await store.audit_head()))}
    store._links = store._links[:3]
    for number in range(5):
        await store.audit(AuditEntry(kind="k", actor="a", subject=f"other {number}"))
    verdict = audit.verify_export(await exported(store), known=KNOWN, elsewhere=kept)
    assert not verdict.intact and "row 6" in verdict.why
    assert audit.verify_export(await exported(store), known=KNOWN).intact  # it is whole in itself, and signed


async def test_a_tail_cut_off_with_its_head_is_found_by_an_anchor_kept_elsewhere():
    store = await chain()
    kept = anchors.read_anchors([audit.head_line(await anchors.anchor(store, OURS, actor="a", now=NOW))], {})
    assert list(kept) == [8]
    store._links = store._links[:6]
    lines = await exported(store)
    assert audit.verify_export(lines, known=KNOWN).intact
    verdict = audit.verify_export(lines, known=KNOWN, elsewhere=kept)
    assert (verdict.intact, verdict.wrong) == (False, 7)
    verdict = await audit.verify_store(store, known=KNOWN, now=LATER, elsewhere=kept)
    assert (verdict.intact, verdict.wrong) == (False, 7)


async def test_an_old_export_is_not_judged_by_younger_anchors():
    store = await chain()
    old = await exported(store, now=NOW)
    await store.audit(AuditEntry(kind="k", actor="a", subject="s"))
    made = await anchors.anchor(store, OURS, actor="a", now=LATER)
    kept = anchors.read_anchors([audit.head_line(made)], {})
    assert audit.verify_export(old, known=KNOWN, elsewhere=kept).intact


async def test_lines_of_a_log_are_anchors():
    store = await chain()
    number, hash = await store.audit_head()
    line = {"ts": "x", "level": "info", "event": "audit.anchored", "number": number, "hash": hash.hex(), "node": "n",
            "at": "2026-11-21T12:00:00.000000Z", "certificate_sha256": "0"}  # fmt: skip
    other = {"ts": "x", "event": "message.received", "number": 3}
    kept = anchors.read_anchors([json.dumps(x).encode() for x in (other, line)], {})
    assert list(kept) == [8] and audit.verify_export(await exported(store), known=KNOWN, elsewhere=kept).intact
    kept = {3: anchors.Anchor(3, "00" * 32, line["at"])}
    assert audit.verify_export(await exported(store), known=KNOWN, elsewhere=kept).wrong == 1


@pytest.mark.parametrize("spoil", [
    lambda line: line.replace(b'"number":8', b'"number":7'),
    lambda line: b"not json\n",
    lambda line: line + line.replace(b'"number":8', b'"number":7'),
])  # fmt: skip
async def test_an_anchor_that_was_changed_is_refused(spoil):
    made = audit.head_line(await anchors.anchor(await chain(), OURS, actor="a", now=NOW))
    with pytest.raises(ConfigError, match="anchor"):
        anchors.read_anchors(spoil(made).splitlines(), KNOWN)


async def test_a_part_is_exported_and_begins_where_it_says():
    store = await chain()
    lines = await exported(store, after=5)
    verdict = audit.verify_export(lines, known=KNOWN)
    assert verdict.intact and (verdict.after, verdict.number) == (5, 8) and len(lines) == 4
    # The head is signed over where it begins: a whole export cannot be passed off as a part.
    head = json.loads(lines[0])
    whole = await exported(store)
    forged = {**json.loads(whole[0]), "after": 5, "previous": head["previous"]}
    text = json.dumps(forged, separators=(",", ":")).encode() + b"\n"
    assert audit.verify_export([text, *whole[6:]], known=KNOWN).wrong == 0
    with pytest.raises(NotFound):
        await exported(store, after=9)


async def test_whom_to_believe():
    store = await chain(anchored=())
    for key, known, intact, believed in (
        (OURS, {}, True, False), (None, {}, True, False), (None, KNOWN, False, False), (STRANGER, KNOWN, False, False),
        (STRANGER, {}, True, False), (OURS, KNOWN, True, True),
    ):  # fmt: skip
        verdict = audit.verify_export(await exported(store, key=key), known=known)
        assert (verdict.intact, verdict.believed) == (intact, believed), (key, known)
    with pytest.raises(KeyUnavailable):
        [line async for line in audit.export(store, keyring(), now=NOW)]


async def test_anchors_are_made_when_there_is_something_new():
    store = await chain(3, anchored=())
    assert (await anchors.anchor(store, OURS, actor="node", now=NOW)).number == 3
    assert await anchors.anchor(store, OURS, actor="node", now=NOW) is None
    assert (await anchors.anchor(store, OURS, actor="node", now=NOW, idle=True)).number == 4
    assert await anchors.anchor(MemoryStore(Clock(NOW)), OURS, actor="node", now=NOW) is None
    verdict = await audit.verify_store(store, known=KNOWN, now=LATER)
    assert verdict.intact and (verdict.number, verdict.anchored) == (5, 4)


async def test_a_forged_anchor_in_the_chain_is_found():
    """A row that calls itself an anchor and fits the chain, but that our key has not signed."""
    store = await chain(5)
    row = store._links[4]
    store._links = rechained([*store._links[:4], row._replace(detail=row.detail.replace('"signature":"', '"signature":"AAAA'))])
    verdict = await audit.verify_store(store, known=KNOWN, now=LATER)
    assert (verdict.intact, verdict.wrong) == (False, 1) and "signature" in verdict.why
    store._links = rechained([*store._links[:4], row._replace(detail="{}")])
    assert (await audit.verify_store(store, known=KNOWN, now=LATER)).wrong == 5


# -- what a node has seen ---------------------------------------------------------------------


async def look(store, kept, now=NOW):
    return await anchors.anchor_on(store, lambda: OURS, kept, node="node", now=now)


@pytest.fixture
def kept(tmp_path):
    return anchors.Kept(tmp_path)


async def test_a_node_signs_what_goes_on_from_what_it_has_seen(kept):
    store = await chain(4, anchored=())
    assert (await look(store, kept)).number == 4 and kept.read().number == 5
    assert await look(store, kept) is None, "nothing new"
    for number in range(450):
        await store.audit(AuditEntry(kind="k", actor="a", subject=f"t{number}"))
    assert (await look(store, kept, LATER)).number == 455 and kept.read().number == 456
    assert kept.file.stat().st_mode & 0o077 == 0
    assert [path.name for path in kept.file.parent.iterdir()] == [kept.file.name]


@pytest.mark.parametrize(("spoil", "why"), [
    (lambda links: links[:3], "row 5, which was there"),
    (lambda links: rechained([links[0]._replace(subject="x"), *links[1:]]), "row 5, which was there"),
    (lambda links: [*links[:6], links[6]._replace(subject="x"), *links[7:]], "row 7: its hash"),
    (lambda links: [*links[:5], *links[6:]], "row 6"),
], ids=["cut off", "written anew", "edited since", "deleted since"])  # fmt: skip
async def test_a_node_never_signs_a_chain_that_somebody_has_changed(kept, caplog, spoil, why):
    """Whoever owns the database would else only have to wait for the next signature."""
    store = await chain(4, anchored=())
    await look(store, kept)
    for number in range(4):
        await store.audit(AuditEntry(kind="k", actor="a", subject=f"t{number}"))
    store._links = spoil(store._links)
    before, seen = len(store._links), kept.read()
    assert await look(store, kept, LATER) is None and len(store._links) == before and kept.read() == seen
    assert why in await anchors.departs(store, seen)
    assert metrics.collected()["gateway_audit_broken"][("seen",)][0] == 1.0
    store = await chain(4, anchored=())
    kept.file.unlink()
    await look(store, kept)
    assert metrics.collected()["gateway_audit_broken"][("seen",)][0] == 0.0


@pytest.mark.parametrize("text", [b"", b"{}", b"no json"])
async def test_what_is_kept_and_not_ours_is_refused(kept, text):
    kept.file.write_bytes(text)
    with pytest.raises(ConfigError):
        await look(await chain(4), kept)


async def test_a_detail_that_is_not_on_one_line_travels_as_text():
    """Ours never is; but who appends by hand in SQL has a right to an export, too."""
    store = await chain(2, anchored=())
    store._links = rechained([*store._links, Link(3, NOW, "k", "a", "s", '{\n "a": 1}', b"")])
    lines = await exported(store)
    assert audit.verify_export(lines, known=KNOWN).intact and len(lines) == 4


# -- whatever is done to an export ---------------------------------------------------------


@pytest.fixture(scope="module")
def whole():
    import asyncio

    async def make():
        return b"".join(await exported(await chain(12)))

    return asyncio.run(make())


def verified(octets):
    return audit.verify_export(octets.splitlines(keepends=True) if b"\r" not in octets else _lines(octets), known=KNOWN)


def _lines(octets):
    parts = octets.split(b"\n")
    return [part + b"\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])


@st.composite
def changes(draw, octets):
    """A few random changes of bytes or of lines."""
    for _ in range(draw(st.integers(1, 3))):
        kind = draw(st.sampled_from(["flip", "cut", "insert", "drop line", "copy line", "swap lines", "truncate", "splice"]))
        lines = octets.splitlines(keepends=True)
        if not octets:
            return octets
        a, b = draw(st.integers(0, len(octets) - 1)), draw(st.integers(0, len(octets) - 1))
        i, j = draw(st.integers(0, len(lines) - 1)), draw(st.integers(0, len(lines) - 1))
        match kind:
            case "flip":
                octets = octets[:a] + bytes([octets[a] ^ draw(st.integers(1, 255))]) + octets[a + 1 :]
            case "cut":
                octets = octets[: min(a, b)] + octets[min(max(a, b), min(a, b) + 30) :]
            case "insert":
                octets = octets[:a] + draw(st.binary(min_size=1, max_size=8)) + octets[a:]
            case "drop line":
                octets = b"".join(lines[:i] + lines[i + 1 :])
            case "copy line":
                octets = b"".join([*lines[:i], lines[j], *lines[i:]])
            case "swap lines":
                lines[i], lines[j] = lines[j], lines[i]
                octets = b"".join(lines)
            case "truncate":
                octets = octets[:a]
            case "splice":
                octets = octets[:a] + octets[b : b + 40] + octets[a:]
    return octets


@given(data=st.data())
@settings(max_examples=600, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_change_of_an_export_is_found(whole, data):
    changed = data.draw(changes(whole))
    assert verified(changed).intact is (changed == whole)


@given(data=st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
def test_rows_changed_by_somebody_who_can_hash_are_found(whole, data):
    """Rows are edited, dropped or moved as values and the chain is made to fit again, with a head that says so; only
    the signature cannot be made."""
    lines = whole.splitlines(keepends=True)
    rows = links(lines)
    for _ in range(data.draw(st.integers(1, 3))):
        i, j = data.draw(st.integers(0, len(rows) - 1)), data.draw(st.integers(0, len(rows) - 1))
        match data.draw(st.sampled_from(["edit", "drop", "move", "copy"])):
            case "edit":
                rows[i] = rows[i]._replace(subject=data.draw(st.text("abc", max_size=3)))
            case "drop" if len(rows) > 1:
                del rows[i]
            case "move":
                rows.insert(j, rows.pop(i))
            case "copy":
                rows.insert(j, rows[i])
    rows = rechained(rows)
    head = json.loads(lines[0]) | {"number": len(rows), "hash": rows[-1].hash.hex()}
    made = [json.dumps(head, separators=(",", ":")).encode() + b"\n", *map(audit.line, rows)]
    assert audit.verify_export(made, known=KNOWN).intact is (b"".join(made) == whole)


def test_a_long_export_is_checked_in_little_memory():
    """Flat: a line is forgotten when the next one comes; the last of 30 pages takes no more than the first."""
    assert peak_of(3000) < 100 << 10


@pytest.mark.slow
def test_a_very_long_export_is_checked_in_as_little_memory():
    assert peak_of(100_000) < 100 << 10


def peak_of(count):
    def rows():
        previous = BEGINNING
        for number in range(1, count + 1):
            row = (number, NOW, "message.refused", "192.0.2.1", "-", f'{{"code":"EBMS:0101","n":{number}}}')
            previous = hash_of(previous, *row)
            yield audit.line(Link(*row, previous))

    last = b""
    for last in rows():
        pass
    made = anchors.signed(anchors.head(count, bytes.fromhex(json.loads(last)["hash"]), at=NOW), OURS)

    def whole():
        yield audit.head_line(made)
        yield from rows()

    tracemalloc.start()
    verdict = audit.verify_export(whole(), known=KNOWN)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert verdict.intact and verdict.number == count
    return peak
