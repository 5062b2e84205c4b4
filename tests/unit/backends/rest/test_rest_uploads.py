"""Large content ahead of the submission: offsets, digests, interruptions, bounds."""

import base64
import hashlib
import tracemalloc

from tests.unit.backends.rest.conftest import form, refused

OCTETS = {"Content-Type": "application/octet-stream"}


def digest(content, name="sha256", key="sha-256"):
    return {"Content-Digest": f"{key}=:{base64.b64encode(hashlib.new(name, content).digest()).decode()}:"}


async def begin(http, size, **more):
    answer = await http.post("/v1/uploads", json={"size": size} | more)
    assert answer.status_code == 201, answer.text
    assert answer.headers["location"] == f"/v1/uploads/{answer.json()['id']}" and answer.headers["upload-offset"] == "0"
    return answer.headers["location"]


async def patch(http, place, offset, content, **headers):
    return await http.patch(place, content=content, headers=OCTETS | {"Upload-Offset": str(offset)} | headers)


async def submit(http, upload, key="k", **part):
    from tests.unit.backends.rest.real import META

    parts = [{"mime_type": "application/x-ebrs+xml", "upload": upload.rpartition("/")[2]} | part]
    return await http.post("/v1/messages", json=META | {"parts": parts}, headers={"Idempotency-Key": key})


async def payload(http, submitted):
    view = (await http.get(f"/v1/messages/{submitted.json()['id']}")).json()
    return (await http.get(f"/v1/messages/{view['id']}/payloads/{view['parts'][-1]['cid']}")).content


async def test_in_pieces(site):
    http, content = await site.client(), bytes(range(256)) * 5000
    place = await begin(http, len(content), sha256=hashlib.sha256(content).hexdigest())
    refused(await submit(http, place), "upload-incomplete")
    for start in range(0, len(content), 500_000):
        piece = content[start : start + 500_000]
        answer = await patch(http, place, start, piece, **(digest(piece) if start else {}))
        assert answer.status_code == 200 and answer.headers["upload-offset"] == str(start + len(piece))
    assert answer.json()["complete"] is True == (await http.get(place)).json()["complete"]
    sent = await submit(http, place)
    assert sent.status_code == 202 and await payload(http, sent) == content
    again = await submit(http, place)
    assert again.json()["replayed"] is True and again.json()["id"] == sent.json()["id"]
    await site.lv.send_due()
    assert (await http.get(f"/v1/messages/{sent.json()['id']}")).json()["state"] == "ACKNOWLEDGED"
    assert (await http.delete(place)).status_code == 204
    refused(await http.get(place), "not-found")
    assert "upload" in refused(await submit(http, place, "other"), "invalid-document")["errors"][0]["pointer"]


async def test_the_whole_at_once_and_anew(site):
    http = await site.client()
    place = await begin(http, 5)
    for content in (b"first", b"other"):
        answer = await http.put(place, content=content, headers=OCTETS | digest(content, "sha512", "sha-512"))
        assert answer.json()["complete"] is True
    assert await payload(http, await submit(http, place)) == b"other"


async def test_other_offsets(site):
    http = await site.client()
    place = await begin(http, 10)
    assert (await patch(http, place, 0, b"12345")).status_code == 200
    for offset in (0, 4, 6, 99):
        answer = await patch(http, place, offset, b"x")
        refused(answer, "offset-conflict")
        assert answer.headers["upload-offset"] == "5"
    for offset in ("", "-1", "5.0", "9" * 30):
        refused(await patch(http, place, offset, b"x"), "invalid-parameter")
    refused(await http.patch(place, content=b"x", headers=OCTETS), "invalid-parameter")
    assert (await http.get(place)).json()["received"] == 5
    refused(await patch(http, place, 5, b"x" * 6), "payload-too-large")


async def test_a_wrong_digest_keeps_nothing(site):
    http = await site.client()
    place = await begin(http, 3_000_000)
    await patch(http, place, 0, b"a" * 1_000_000)
    refused(await patch(http, place, 1_000_000, b"b" * 1_000_000, **digest(b"c")), "digest-mismatch")
    assert (await http.get(place)).json()["received"] == 1_000_000
    piece = b"d" * 2_000_000
    assert (await patch(http, place, 1_000_000, piece, **digest(piece))).json()["complete"] is True
    assert await payload(http, await submit(http, place)) == b"a" * 1_000_000 + piece
    for wrong in ("sha-256=abc", "md5=:AAAA:", "sha-256=:AAAA:", "sha-256=:" + "A" * 2000, "\xff"):
        answer = await http.patch(
            place, content=b"", headers=OCTETS | {"Upload-Offset": "3000000", "Content-Digest": wrong.encode("latin-1")}
        )
        refused(answer, "invalid-parameter")
        assert "sha-256" in answer.headers["want-content-digest"]


async def test_content_that_is_not_what_was_promised_is_not_sent(site):
    http = await site.client()
    place = await begin(http, 3, sha256=hashlib.sha256(b"abc").hexdigest())
    await patch(http, place, 0, b"abd")
    refused(await submit(http, place), "digest-mismatch")
    assert (await http.get("/v1/messages")).json()["messages"] == []


async def test_what_came_before_an_interruption_stays_unless_a_digest_was_given(site):
    http, content = await site.client(), b"x" * 700_000

    async def broken():
        yield content
        raise OSError("the line is cut")

    for headers, kept in ((digest(content * 2), 0), ({}, len(content))):
        place = await begin(http, 1_400_000)
        try:
            await http.put(place, content=broken(), headers=OCTETS | headers)
        except OSError:
            pass
        assert (await http.get(place)).json()["received"] == kept


async def test_uploads_are_the_clients_own(site):
    http, other = await site.client("a"), await site.client("b")
    place = await begin(http, 3)
    await patch(http, place, 0, b"abc")
    refused(await other.get(place), "not-found")
    refused(await patch(other, place, 0, b"abc"), "not-found")
    refused(await other.put(place, content=b"abc", headers=OCTETS), "not-found")
    refused(await other.delete(place), "not-found")
    assert "no such upload" in refused(await submit(other, place), "invalid-document")["errors"][0]["detail"]
    assert (await http.get(place)).json()["received"] == 3


async def test_bounds(site):
    http = await site.client()
    for size in (0, -1, 1.5, "x", 1 << 50):
        refused(await http.post("/v1/uploads", json={"size": size}), "invalid-document")
    refused(await http.post("/v1/uploads", json={"size": 1 << 40}), "payload-too-large")
    refused(await http.post("/v1/uploads", json={"size": 1, "sha256": "00"}), "invalid-document")
    for _ in range(32):
        await begin(http, 1)
    refused(await http.post("/v1/uploads", json={"size": 1}), "upload-quota")
    await begin(await site.client("b"), 1)


async def test_the_same_key_begins_it_once(site):
    http, key = await site.client(), {"Idempotency-Key": "u1"}
    first, again = [await http.post("/v1/uploads", json={"size": 3}, headers=key) for _ in range(2)]
    assert again.json()["id"] == first.json()["id"]
    refused(await http.post("/v1/uploads", json={"size": 4}, headers=key), "idempotency-key-reused")


async def test_beside_a_form(site):
    http = await site.client()
    place = await begin(http, 3)
    await patch(http, place, 0, b"abc")
    from tests.unit.backends.rest.real import META

    parts = [
        {"mime_type": "application/x-ebrs+xml", "cid": "one@x"},
        {"mime_type": "application/pdf", "upload": place.rpartition("/")[2]},
        {"mime_type": "application/pdf", "cid": "three@x"},
    ]
    fields = [("one@x", {}, b"<query/>"), ("three@x", {}, b"ccc")]
    answer = await http.submit_form(META | {"parts": parts}, fields)
    assert answer.status_code == 202, answer.text
    view = (await http.get(f"/v1/messages/{answer.json()['id']}")).json()
    for part, content in zip(view["parts"], (b"<query/>", b"abc", b"ccc"), strict=True):
        assert (await http.get(f"/v1/messages/{view['id']}/payloads/{part['cid']}")).content == content
    too_many = [*fields, ("two", {}, b"x")]
    refused(await http.submit_form(META | {"parts": parts}, too_many, key="k2"), "parts-mismatch")
    both = {"mime_type": "a/b", "content": "", "upload": "x"}
    for wrong in (both, {"mime_type": "a/b"}):
        answer = await http.post("/v1/messages:validate", json=META | {"parts": [wrong]})
        assert refused(answer, "invalid-document")["errors"][0]["pointer"] == "#/parts/0"
    assert form([])  # the helper of the other tests is the one that is used here


async def test_what_is_stored_is_sealed(site):
    http = await site.client()
    place = await begin(http, 9)
    await patch(http, place, 0, b"plaintext")
    [pieces] = site.store._pieces.values()
    assert all(b"plaintext" not in piece.content for piece in pieces.values())


async def test_memory_stays_flat(site):
    """A block of the network and a piece or two, however large the upload; the store in memory keeps the pieces."""
    http, size, block = await site.client(), 24 << 20, b"z" * (64 << 10)
    place = await begin(http, size)
    kept = []

    async def keep(id, client, chunk, *, received, lasts):
        kept.append(len(chunk.content))

    site.store.write_upload = keep

    async def blocks():
        for _ in range(size // len(block)):
            yield block

    tracemalloc.start()
    await http.put(place, content=blocks(), headers=OCTETS | {"Content-Length": str(size)})
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(kept) > size and peak < 6 << 20, peak
