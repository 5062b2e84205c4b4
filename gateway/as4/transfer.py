"""Undo a Content-Transfer-Encoding [rfc2045 6], strictly.

Every AS4 stack sends `binary`; the older encodings are legal over HTTP all the same, and
digests, decryption and gzip are defined on the decoded octets [as4 1.2]. Decoders that
skip what they do not understand let two readers see different octets; these refuse
[threats D11]. Each takes octets by `feed` and must be ended by `finish`.
"""

import binascii
import re
from typing import Protocol

from gateway.errors import MimeInconsistency

WHERE = "Content-Transfer-Encoding"

#: RFC 2045 6.7 (5) says 76 characters to a line; 998 is what SMTP carries [rfc5321 4.5.3].
MAX_QUOTED_LINE = 998

_BLANKS = b" \t\r\n"
_UNQUOTED = re.compile(rb"[^\t\r\n -~]|\r(?!\n)|[ \t]\r?\n|[^\n]{%d}" % (MAX_QUOTED_LINE + 1))
_ESCAPE = re.compile(rb"=(?:([0-9A-Fa-f]{2})|(\r?\n)?)")


class TransferDecoder(Protocol):
    """`feed` returns what is decoded so far, `finish` nothing or a refusal: `MimeInconsistency`."""

    def feed(self, octets: bytes) -> bytes: ...

    def finish(self) -> bytes: ...


def transfer_decoder(encoding: str) -> TransferDecoder | None:
    """The decoder for a Content-Transfer-Encoding value, None where octets stay as they are.

    A part that says `7bit` is not checked for it: its octets are taken as they are.
    """
    match encoding.strip().lower():
        case "" | "7bit" | "8bit" | "binary":
            return None
        case "base64":
            return Base64Decoder()
        case "quoted-printable":
            return QuotedPrintableDecoder()
    raise MimeInconsistency("an unknown transfer encoding", where=WHERE)


class Base64Decoder:
    """base64 in lines of any length; nothing but the alphabet, blanks and final padding."""

    def __init__(self) -> None:
        self._held = b""
        self._padded = False

    def feed(self, octets: bytes) -> bytes:
        text = self._held + octets.translate(None, _BLANKS)
        if self._padded and text:
            raise MimeInconsistency("base64 goes on after its padding", where=WHERE)
        whole = len(text) - len(text) % 4
        quads, self._held = text[:whole], text[whole:]
        self._padded = quads.endswith(b"=")
        try:
            return binascii.a2b_base64(quads, strict_mode=True)
        except binascii.Error:
            raise MimeInconsistency("this is not base64", where=WHERE) from None

    def finish(self) -> bytes:
        if self._held:
            raise MimeInconsistency("base64 ends early", where=WHERE)
        return b""


class QuotedPrintableDecoder:
    """quoted-printable, decoded line by line; an `=` always escapes two hex digits or a line end."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, octets: bytes) -> bytes:
        text = self._held + octets
        whole = text.rfind(b"\n") + 1
        lines, self._held = text[:whole], text[whole:]
        if len(self._held) > MAX_QUOTED_LINE:
            raise MimeInconsistency("a quoted-printable line is too long", where=WHERE)
        return _unquoted(lines)

    def finish(self) -> bytes:
        if self._held.endswith((b" ", b"\t", b"\r")):
            raise MimeInconsistency("quoted-printable ends in a blank", where=WHERE)
        return _unquoted(self._held)


def _unquoted(text: bytes) -> bytes:
    # A blank at a line's end may have been added on the way [rfc2045 6.7 (3)]: nobody can
    # say whether it is content, so it is refused.
    if _UNQUOTED.search(text):
        raise MimeInconsistency("this is not quoted-printable", where=WHERE)
    return _ESCAPE.sub(_escaped, text)


def _escaped(escape: re.Match[bytes]) -> bytes:
    if escape[1]:
        return bytes.fromhex(escape[1].decode("ascii"))
    if escape[2]:
        return b""
    raise MimeInconsistency("a broken escape in quoted-printable", where=WHERE)
