"""A folder as a door: what is dropped is sent once, what is received appears whole."""

import asyncio
import os
from pathlib import Path

import pytest
from lxml import etree

from gateway.backends.filesystem import FilesystemBackend
from gateway.plugin import Caller, MessageFilter
from tests.unit.backends.domibus_ws.shapes import message_id, messaging
from tests.world import world

CALLER = Caller("backend:files", "files", "files")


def metadata(**changes) -> str:
    changes.setdefault("parts", None)
    whole = messaging(**changes)
    start, end = whole.index("<eb:UserMessage"), whole.index("</eb:Messaging>")
    return whole[start:end].replace("<eb:UserMessage", f'<eb:UserMessage {whole[whole.index("xmlns:eb"):whole.index(">")]}', 1)


@pytest.fixture
async def lv(tmp_path):
    async with world(tmp_path / "lv") as found:
        yield found


@pytest.fixture
def files(lv, tmp_path):
    made = FilesystemBackend(lv.door, {"folder": str(tmp_path / "box"), "delay": 0.0, "sent": "archive"}, name="files")
    for folder in ("OUT", "SENT", "FAILED", "IN"):
        (tmp_path / "box" / folder).mkdir(parents=True)
    made.root = tmp_path / "box"
    return made


def drop(files, name="invoice.xml", content=b"<invoice/>", *, folder="", **header):
    place = files.root / "OUT" / folder
    place.mkdir(parents=True, exist_ok=True)
    (place / "metadata.xml").write_text(metadata(**header))
    (place / name).write_bytes(content)
    return place


async def sent(lv):
    found, _ = await lv.door.messages(CALLER, MessageFilter(direction="outbound"))
    return found


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.rglob("*") if p.is_file() and p.name != "metadata.xml")


async def test_a_payload_is_sent_and_put_away(lv, files):
    drop(files)
    assert await files.look() == 1
    [view] = await sent(lv)
    assert names(files.root / "OUT") == [f"invoice_{view.message_id}.xml.SEND_ENQUEUED"]
    assert (view.parts[0].cid, view.parts[0].mime_type) == ("message", "application/xml")
    _, content = await lv.door.payload(CALLER, view.id, "message")
    assert b"".join([block async for block in content]) == b"<invoice/>"
    assert await files.look() == 0
    await lv.send_due()
    assert await files.look() == 1
    assert names(files.root / "OUT") == [] and names(files.root / "SENT") == [f"invoice_{view.message_id}.xml"]


async def test_of_several_processes_one_sends_it(lv, files):
    for n in range(10):
        drop(files, f"{n}.xml", b"<a/>")
    others = [FilesystemBackend(lv.door, {"folder": str(files.root), "delay": 0.0}, name="files") for _ in range(4)]
    await asyncio.gather(*(one.look() for one in others))
    assert len(await sent(lv)) == 10 and len(names(files.root / "OUT")) == 10


async def test_a_process_that_died_before_or_after_the_submission(lv, files):
    """The name has the MessageId, so that the next process submits the same message."""
    drop(files)
    path, id = files._take(files.root / "OUT" / "invoice.xml")
    assert await sent(lv) == []
    assert await files.look() == 1  # died before
    [view] = await sent(lv)
    assert view.message_id == id
    (path.with_name(path.name + ".SEND_ENQUEUED")).rename(path)
    assert await files.look() == 1  # died after
    assert [v.message_id for v in await sent(lv)] == [id]


async def test_a_prescribed_message_id_is_kept_and_followed(lv, files):
    drop(files, info=message_id("mine@backend.example"))
    await files.look()
    assert [v.message_id for v in await sent(lv)] == ["mine@backend.example"]
    await lv.send_due()
    await files.look()
    assert len(names(files.root / "SENT")) == 1


async def test_what_fails_is_put_to_failed_with_the_error(lv, files):
    lv.listener.answer = lambda *_: (200, "application/soap+xml", b"")
    drop(files)
    await files.look()
    [view] = await sent(lv)
    await lv.store.cancel((await lv.store.find(view.message_id))[0].id)
    await files.look()
    kept, error = names(files.root / "FAILED")
    assert error == kept + ".error" and "mshRole: SENDING" in (files.root / "FAILED" / error).read_text()


BAD = {
    "unknown party": {"to": "AP_XX_01"}, "unknown action": {"action": "Nothing"}, "no action": {"action": ""},
    "two parts": {"parts": '<eb:PartInfo href="cid:a"/><eb:PartInfo href="cid:b"/>'},
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
async def test_what_cannot_be_sent_is_explained(lv, files, case):
    drop(files, **BAD[case])
    assert await files.look() == 1
    assert await sent(lv) == [] and names(files.root / "OUT") == []
    _, error = names(files.root / "FAILED")
    assert "errorCode: EBMS:" in (files.root / "FAILED" / error).read_text()


@pytest.mark.parametrize("octets", [
    b"", b"no xml", b"<a/>", b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>', b" " * 300_000 + b"<a/>",
])  # fmt: skip
async def test_hostile_metadata(lv, files, octets):
    drop(files)
    (files.root / "OUT" / "metadata.xml").write_bytes(octets)
    await files.look()
    assert await sent(lv) == []
    assert len(names(files.root / "FAILED")) == 2


async def test_links_locks_and_files_still_being_written_are_left_alone(lv, files, tmp_path):
    (tmp_path / "secret").write_text("secret")
    place = drop(files, "locked.xml")
    (place / "locked.xml.lock").touch()
    (place / "link.xml").symlink_to(tmp_path / "secret")
    (place / "half.part").write_text("x")
    (files.root / "OUT" / "alone").mkdir()
    (files.root / "OUT" / "alone" / "no-metadata.xml").write_text("x")
    assert await files.look() == 0 and await sent(lv) == []
    slow = FilesystemBackend(lv.door, {"folder": str(files.root), "delay": 3600.0}, name="files")
    (place / "locked.xml.lock").unlink()
    assert await slow.look() == 0
    assert await files.look() == 1
    (place / "metadata.xml").unlink()
    (place / "metadata.xml").symlink_to(tmp_path / "secret")
    (place / "next.xml").write_text("x")
    await files.look()
    assert len(await sent(lv)) == 1


async def received(lv, **changes):
    from gateway.msh import door

    sent_ = lv.peer.message([("application/x-ebrs+xml", b"<answer/>"), ("application/pdf", os.urandom(600_000))], **changes)
    assert (await lv.give(sent_)).status == 200
    [job] = await lv.store.claim("deliver", worker="w", limit=1, lease=60)
    return door.delivery(job, await lv.store.message(job.message)), sent_


async def test_a_received_message_appears_whole(lv, files):
    lv.gateway._rooms.agreements.value.pmodes.legs  # the agreement delivers to "rest": its queue stands for ours
    files._caller = Caller("backend:rest", "rest", "rest")
    delivery, sent_ = await received(lv)
    await files.deliver(delivery)
    await files.deliver(delivery)  # again, as after a lost acknowledgement
    [folder] = (files.root / "IN" / "C4").iterdir()
    assert folder.name == sent_.message.message_id
    root = etree.parse(folder / "metadata.xml").getroot()
    listed = [p.text for p in root.iter("{*}Property") if p.get("name") == "FileName"]
    assert listed == ["payload-1.bin", "payload-2.pdf"] == names(folder)
    assert [(folder / name).read_bytes() for name in listed] == list(sent_.payloads.values())
    assert root.findtext(".//{*}MessageId") == folder.name


async def test_a_half_written_message_is_not_seen(lv, files, monkeypatch):
    files._caller = Caller("backend:rest", "rest", "rest")
    delivery, _ = await received(lv)
    from gateway.plugin import DeliveryDelayed

    def full(*_args):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(DeliveryDelayed):
            await files.deliver(delivery)
    assert names(files.root / "IN") == []
    await files.deliver(delivery)
    assert len(names(files.root / "IN")) == 2


@pytest.mark.parametrize("name", ["../../etc/cron.d/x", "..", "a/b", "C:\\x", "CON\0", "x" * 300, "‮gnp.exe", "-rf", " "])
def test_folder_names_lead_nowhere(name):
    from gateway.backends.filesystem import _folder_name

    made = _folder_name(name)
    assert "/" not in made and not made.startswith(".") and len(made) < 200 and made.isascii() and "\0" not in made
    assert made != _folder_name(name + "x")
