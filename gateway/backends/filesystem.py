"""The file-system door: directories with metadata.xml, as the Domibus FS plugin has them.

    FOLDER/OUT/…/metadata.xml, payload     to be sent; every other file beside a metadata.xml is one message
    FOLDER/SENT, FOLDER/FAILED             where a payload goes afterwards; a failed one with NAME.error
    FOLDER/IN/FINALRECIPIENT/MESSAGEID/    metadata.xml and the payloads of what was received

A payload is picked up by renaming it to `name_MESSAGEID.ext`: of several processes one
succeeds, and whatever dies afterwards, the name says under which MessageId the payload is to be
submitted, or was. What is received is written aside and appears in one rename. File names
come from us; what a partner wrote stands in metadata.xml [threats M01].
"""

import asyncio
import contextlib
import logging
import mimetypes
import os
import re
import secrets
import shutil
import stat
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct

from gateway.backends.domibus_ws import faults
from gateway.backends.domibus_ws.names import EB, STATUS
from gateway.backends.domibus_ws.reading import Malformed, Node, Payload, read_document
from gateway.backends.domibus_ws.submission import wanted
from gateway.backends.domibus_ws.writing import moment, user_message
from gateway.plugin import (
    Caller,
    Delivery,
    DeliveryDelayed,
    DeliveryRefused,
    Event,
    GatewayError,
    MessageFilter,
    MessageView,
    Msh,
    SubmissionConflict,
    SubmissionRefused,
    TooLarge,
    WebhookTarget,
)

log = logging.getLogger(__name__)
METADATA = "metadata.xml"
MAX_METADATA = 256 << 10
BLOCK = 256 << 10
#: The content id of the one payload, as the FS plugin calls it.
PAYLOAD_CID = "cid:message"
#: What is no payload.
_IGNORED = (".lock", ".part", ".error")
#: Folders below OUT, and files looked at in one round.
MAX_DEPTH = 8
MAX_FILES = 10_000


class Options(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The table `[backends.NAME]` with `kind = "filesystem"`.

    folder: where OUT, SENT, FAILED and IN are; made if they are not there.
    host: right part of the MessageIds it makes.
    interval: seconds between two looks at OUT.
    delay: a file is picked up when nobody has written to it for so many seconds.
    sent, failed: what becomes of a payload afterwards.
    """

    folder: str
    kind: Literal["filesystem"] = "filesystem"
    host: str = "filesystem.local"
    interval: float = 10.0
    delay: float = 2.0
    sent: Literal["delete", "archive"] = "delete"
    failed: Literal["delete", "archive"] = "archive"


class FilesystemBackend:
    """One folder."""

    pushes = True

    def __init__(self, msh: Msh, options: dict[str, Any], *, name: str = "filesystem") -> None:
        """Raises `msgspec.ValidationError`."""
        self.name = name
        self._msh, self._options = msh, msgspec.convert(options, Options)
        self._root = Path(self._options.folder)
        #: A file that was picked up: name_UUID@HOST.ext, then perhaps .STATUS.
        self._taken = re.compile(
            rf".*_(?P<id>[0-9a-f-]{{36}}@{re.escape(self._options.host)})(?:\.[A-Za-z0-9]{{1,16}})??"
            rf"(?:\.(?P<status>{'|'.join(sorted(set(STATUS.values())))}))?"
        )
        self._caller = Caller(f"backend:{name}", name, name)

    @property
    def asgi(self) -> None:
        return None

    async def run(self) -> None:
        """Look at OUT for as long as the process lives."""
        for folder in ("OUT", "SENT", "FAILED", "IN"):
            (self._root / folder).mkdir(mode=0o750, parents=True, exist_ok=True)
        while True:
            try:
                await self.look()
            except (GatewayError, OSError) as error:
                log.warning("the folder %s could not be worked through: %s", self._root, error)
            await asyncio.sleep(self._options.interval)

    # -- received -------------------------------------------------------------------

    async def deliver(self, delivery: Delivery) -> None:
        """Write a message out. Its folder appears with everything in it, or not at all."""
        message = delivery.message
        recipient = next((p.value for p in message.properties if p.name == "finalRecipient"), "unknown")
        final = self._root / "IN" / _folder_name(recipient) / _folder_name(message.message_id)
        if final.exists():
            return  # delivered before, and the acknowledgement was lost
        aside = final.with_name(f".{secrets.token_hex(8)}.part")
        try:
            final.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            aside.mkdir(mode=0o750)
            names = [_file_name(n, part.mime_type) for n, part in enumerate(message.parts)]
            _write(aside / METADATA, [_metadata(message, names).encode()])
            for part, name in zip(message.parts, names, strict=True):
                _, content = await self._msh.payload(self._caller, message.id, part.cid)
                await _copy(content, aside / name)
            _settle(aside)
            aside.rename(final)
            _settle(final.parent)
        except OSError as error:
            raise DeliveryDelayed(f"cannot write to {final.parent}: {error.strerror}") from None
        finally:
            shutil.rmtree(aside, ignore_errors=True)

    async def notify(self, target: WebhookTarget, event: Event) -> None:
        raise DeliveryRefused("a folder has no webhooks")

    def retry_in(self, attempt: int) -> float | None:
        """A full disk passes; the message waits for as long as it takes."""
        return min(5.0 * 2 ** min(attempt, 10), 3600.0)

    # -- to be sent -------------------------------------------------------------------

    async def look(self) -> int:
        """Pick up what is new and follow what was picked up; how many files were moved on."""
        done = 0
        for path in await asyncio.to_thread(lambda: list(_files(self._root / "OUT"))):
            taken = self._taken.fullmatch(path.name)
            if taken is None:
                if found := self._take(path):
                    done += await self._submit(*found)
            elif taken["status"] is None:
                done += await self._submit(path, taken["id"])
            else:
                done += await self._follow(path, taken["id"], taken["status"])
        return done

    def _take(self, path: Path) -> tuple[Path, str] | None:
        """Rename a payload that nobody writes to any more: its new path, and the MessageId in it. None when it
        is not due, or another process has it."""
        try:
            facts = path.lstat()
            if not stat.S_ISREG(facts.st_mode) or time.time() - facts.st_mtime < self._options.delay:
                return None
            if path.with_name(path.name + ".lock").exists():
                return None
            if not stat.S_ISREG((path.parent / METADATA).lstat().st_mode):
                return None
            id = f"{uuid.uuid4()}@{self._options.host}"
            ending = path.suffix if re.fullmatch(r"\.[A-Za-z0-9]{1,16}", path.suffix) else ""
            return path.rename(path.with_name(f"{path.name.removesuffix(ending)}_{id}{ending}")), id
        except FileNotFoundError:
            return None

    async def _submit(self, path: Path, id: str) -> bool:
        """Submit under the MessageId that the name says; the same again is the same message."""
        try:
            header = read_metadata(path.parent / METADATA)
            payload = Payload("payload", 0, {"payloadId": PAYLOAD_CID, "contentType": _mime_of(path)})
            found = wanted(_with_part(header), [payload], set())
            submission = msgspec.structs.replace(found.submission, message_id=found.submission.message_id or id)
            done = await self._msh.submit(self._caller, submission, lambda _: _blocks(path))
        except FileNotFoundError:
            return False  # another process was quicker, or somebody took it away
        except (Malformed, faults.Fault, SubmissionRefused, TooLarge) as error:
            self._fail(path, id, _text_of(error))
            return True
        _rename(path, f"{path.name}.{STATUS[done.state]}")
        return True

    async def _follow(self, path: Path, id: str, status: str) -> bool:
        """See what became of a message, and move its payload on."""
        id = _given_id(path.parent / METADATA) or id
        found, _ = await self._msh.messages(self._caller, MessageFilter(message_id=id, direction="outbound", limit=1))
        if not found:
            return False
        now = STATUS[found[0].state]
        if now == status:
            return False
        name = path.name.removesuffix(f".{status}")
        if now in ("ACKNOWLEDGED", "DELETED"):
            self._put_away(path, self._root / "SENT" / name, self._options.sent)
        elif now == "SEND_FAILURE":
            self._fail(path, id, (found[0].error_code or "EBMS:0004", found[0].error_detail or ""), name=name)
        else:
            _rename(path, f"{name}.{now}")
        return True

    def _fail(self, path: Path, id: str, error: tuple[str, str], *, name: str | None = None) -> None:
        """Put a payload to FAILED with what was wrong."""
        at, (code, detail) = moment(datetime.now(UTC)), error
        lines = (f"errorCode: {code}", f"errorDetail: {_line(detail)}", f"messageInErrorId: {id}", "mshRole: SENDING",
                 f"notified: {at}", f"timestamp: {at}")  # fmt: skip
        target = self._root / "FAILED" / (name or path.name)
        with contextlib.suppress(FileNotFoundError):
            _write(target.with_name(target.name + ".error"), ["\n".join(lines).encode() + b"\n"])
            self._put_away(path, target, self._options.failed)

    @staticmethod
    def _put_away(path: Path, target: Path, action: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            if action == "delete":
                path.unlink()
            else:
                path.rename(target)


# -- metadata.xml -------------------------------------------------------------------


def read_metadata(path: Path) -> Node:
    """The UserMessage of a metadata.xml. Raises `Malformed`, `FileNotFoundError`."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Malformed(f"{METADATA} cannot be read: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        octets = file.read(MAX_METADATA + 1)
    if len(octets) > MAX_METADATA:
        raise Malformed(f"{METADATA} is larger than {MAX_METADATA >> 10} KiB")
    return read_document(octets, EB, "UserMessage")


def _given_id(path: Path) -> str | None:
    """The MessageId that a metadata.xml prescribes."""
    try:
        info = read_metadata(path).find("MessageInfo")
    except (Malformed, OSError):
        return None
    return (info.text_of("MessageId") or "").strip() or None if info is not None else None


def _with_part(user_message: Node) -> Node:
    """The Messaging element, with the one PartInfo of this door if none is described."""
    messaging = Node(EB, "Messaging", {})
    messaging.children.append(user_message)
    info = user_message.find("PayloadInfo")
    if info is None:
        info = Node(EB, "PayloadInfo", {})
        user_message.children.append(info)
    parts = info.all("PartInfo")
    if not parts:
        info.children.append(Node(EB, "PartInfo", {"href": PAYLOAD_CID}))
    elif len(parts) > 1:
        raise Malformed("a message of this door has one payload")
    else:
        parts[0].attributes["href"] = PAYLOAD_CID
    return messaging


def _metadata(message: MessageView, names: list[str]) -> str:
    """What was received, in the words of the ebMS header; FileName says which file a part is."""
    found = user_message(message, names=names, namespace=f' xmlns:ns5="{EB}"')
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{found}\n'


# -- files --------------------------------------------------------------------------


def _files(root: Path, depth: int = 0) -> Iterator[Path]:
    """Payloads below OUT. Links are not followed."""
    found = 0
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(root) as entries:
        for entry in sorted(entries, key=lambda e: e.name):
            if entry.is_dir(follow_symlinks=False):
                if depth < MAX_DEPTH and not entry.name.startswith("."):
                    yield from _files(Path(entry.path), depth + 1)
            elif entry.is_file(follow_symlinks=False) and _is_payload(entry.name):
                found += 1
                yield Path(entry.path)
            if found >= MAX_FILES:
                return


def _is_payload(name: str) -> bool:
    return name != METADATA and not name.startswith(".") and not name.endswith(_IGNORED)


async def _blocks(path: Path) -> AsyncIterator[bytes]:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        while block := await asyncio.to_thread(file.read, BLOCK):
            yield block


async def _copy(content: AsyncIterator[bytes], path: Path) -> None:
    with path.open("xb") as file:
        async for block in content:
            await asyncio.to_thread(file.write, block)
        file.flush()
        await asyncio.to_thread(os.fsync, file.fileno())


def _write(path: Path, blocks: list[bytes]) -> None:
    with path.open("wb") as file:
        file.writelines(blocks)
        file.flush()
        os.fsync(file.fileno())


def _settle(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _rename(path: Path, name: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        path.rename(path.with_name(name))


def _folder_name(text: str) -> str:
    """A name made of what a partner wrote: letters, digits and a few signs, never a way out."""
    safe = re.sub(r"[^A-Za-z0-9@._-]", "_", text).lstrip(".")[:150]
    return safe if safe and safe == text else f"{safe or 'x'}_{uuid.uuid5(uuid.NAMESPACE_OID, text).hex[:8]}"


def _file_name(number: int, mime_type: str) -> str:
    return f"payload-{number + 1}{mimetypes.guess_extension(mime_type, strict=False) or '.bin'}"


def _mime_of(path: Path) -> str:
    return mimetypes.guess_type(path.name)[0] or "application/octet-stream"


def _line(text: str) -> str:
    return " ".join(text.split())[:1000]


def _text_of(error: Exception) -> tuple[str, str]:
    match error:
        case faults.Fault():
            return error.code, error.message
        case SubmissionConflict():
            return "EBMS:0004", str(error)
        case SubmissionRefused() | TooLarge():
            return "EBMS:0010", str(error)
    return "EBMS:0009", str(error)


__all__ = ["FilesystemBackend"]
