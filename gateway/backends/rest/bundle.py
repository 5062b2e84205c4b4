"""The evidence of one message as a zip that is made while it is sent.

    message.json       what this interface says of it           wire/request.xml    the signed envelope
    header.json        the header as it is on the wire          wire/response.xml   the receipt
    timeline.json      stages and attempts                      certificates/*.pem  of who signed either
    verification.json  what was judged when this was made       payloads/*          only if they are asked for
    manifest.json      last: every file with size and SHA-256, and what is not there

Nothing is compressed: the octets of the evidence stand in the archive as they are.
"""

import base64
import hashlib
import textwrap
import zipfile
from collections.abc import AsyncIterator, Iterator

import msgspec
from msgspec import Struct

from gateway.backends.rest.payloads import suffix_of
from gateway.plugin import Caller, CertificateView, MessageView, Msh


class File(Struct, frozen=True):
    """An entry of the manifest."""

    name: str
    size: int
    sha256: str


class Manifest(Struct, frozen=True, kw_only=True):
    """What is in the archive, and what could have been and is not."""

    message_id: str
    id: str
    files: list[File]
    missing: list[str]


class Bundle:
    """The evidence of one message, collected but for the payloads."""

    def __init__(
        self, msh: Msh, caller: Caller, view: MessageView, files: dict[str, bytes], missing: list[str], payloads: bool
    ) -> None:
        self._msh, self._caller, self._view = msh, caller, view
        self._files, self._missing, self._payloads = files, missing, payloads
        self.name = view.id

    async def blocks(self) -> AsyncIterator[bytes]:
        """The archive."""
        sink, listed = _Sink(), []
        with zipfile.ZipFile(sink, "w", zipfile.ZIP_STORED) as archive:
            for name, octets in self._files.items():
                archive.writestr(self._entry(name), octets)
                listed.append(File(name, len(octets), hashlib.sha256(octets).hexdigest()))
                for block in sink.taken():
                    yield block
            for part in self._view.parts if self._payloads else ():
                name = f"payloads/payload-{part.number}{suffix_of(part)}"
                if not part.available:
                    self._missing.append(name)
                    continue
                digest, size = hashlib.sha256(), 0
                _, content = await self._msh.payload(self._caller, self._view.id, part.cid)
                entry = self._entry(name)
                entry.file_size = part.size
                with archive.open(entry, "w", force_zip64=part.size >= zipfile.ZIP64_LIMIT) as file:
                    async for block in content:
                        file.write(block)
                        digest.update(block)
                        size += len(block)
                        for made in sink.taken():
                            yield made
                listed.append(File(name, size, digest.hexdigest()))
            manifest = Manifest(
                message_id=self._view.message_id, id=self._view.id, files=listed, missing=self._missing
            )
            archive.writestr(self._entry("manifest.json"), _json(manifest))
        for block in sink.taken():
            yield block

    def _entry(self, name: str) -> zipfile.ZipInfo:
        # The time of the message, so that the same evidence makes the same archive.
        entry = zipfile.ZipInfo(name, max(self._view.created_at.timetuple()[:6], (1980, 1, 1, 0, 0, 0)))
        entry.external_attr = 0o600 << 16
        return entry


async def bundle_of(msh: Msh, caller: Caller, id: str, *, payloads: bool) -> Bundle:
    """Collect the evidence of a message. Raises `NotFound`."""
    view = await msh.message(caller, id)
    security, receipt = await msh.security(caller, view.id), await msh.receipt(caller, view.id)
    files: dict[str, bytes] = {
        "message.json": _json(view),
        "header.json": _json(await msh.header(caller, view.id)),
        "timeline.json": _json({
            "stages": await msh.trace(caller, view.id), "attempts": await msh.attempts(caller, view.id)
        }),
        "verification.json": _json({"security": security, "receipt": receipt}),
    }  # fmt: skip
    missing = []
    for name in ("request", "response"):
        octets = await msh.wire(caller, view.id, name)
        if octets is None:
            missing.append(f"wire/{name}.xml")
        else:
            files[f"wire/{name}.xml"] = octets
    for name, judged in (("signer", security), ("receipt-signer", receipt)):
        if judged is not None and judged.signer is not None:
            files[f"certificates/{name}.pem"] = _pem(judged.signer)
    return Bundle(msh, caller, view, files, missing, payloads)


class _Sink:
    """Takes what zipfile writes. It has no `seek` and no `tell`, so sizes follow the content in the archive."""

    def __init__(self) -> None:
        self._blocks: list[bytes] = []

    def write(self, block: bytes) -> int:
        self._blocks.append(bytes(block))
        return len(block)

    def flush(self) -> None:
        pass

    def taken(self) -> Iterator[bytes]:
        blocks, self._blocks = self._blocks, []
        if blocks:
            yield b"".join(blocks)


def _json(value: object) -> bytes:
    return msgspec.json.format(msgspec.json.encode(value), indent=2) + b"\n"


def _pem(certificate: CertificateView) -> bytes:
    lines = textwrap.wrap(base64.b64encode(certificate.der).decode(), 64)
    return "\n".join(["-----BEGIN CERTIFICATE-----", *lines, "-----END CERTIFICATE-----", ""]).encode()
