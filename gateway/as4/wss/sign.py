"""Sign: ds:Signature as text, from references whose digests are known [as4 3.3].

SignedInfo is written in exclusive canonical form and signed as it stands, so nothing is
parsed on the way out. Digests come from the caller: of the canonical text of Messaging
and Body, and of parts when they were frozen. No payload is read for a signature.
"""

import re
from collections.abc import Sequence

from gateway.as4 import ns
from gateway.as4.pmode import TokenReference
from gateway.as4.units import Reference, Transform
from gateway.as4.wss.algorithms import encode_base64
from gateway.as4.wss.keys import SigningKey
from gateway.as4.wss.tokens import write_reference
from gateway.errors import ValueInconsistent

#: What needs no escaping, neither in XML nor in a URI nor in WSS4J's decoding [as4 1.2].
_CONTENT_ID = re.compile(r"[A-Za-z0-9._@-]+")

_EXCLUSIVE = (Transform(ns.EXC_C14N),)
_ATTACHMENT = (Transform(ns.SWA_SIGNATURE),)

_REFERENCE = (
    '<ds:Reference URI="{uri}"><ds:Transforms><ds:Transform Algorithm="{transform}"></ds:Transform></ds:Transforms>'
    '<ds:DigestMethod Algorithm="{method}"></ds:DigestMethod><ds:DigestValue>{digest}</ds:DigestValue></ds:Reference>'
)
_SIGNED_INFO = (
    f'<ds:SignedInfo xmlns:ds="{ns.DS}"><ds:CanonicalizationMethod Algorithm="{ns.EXC_C14N}">'
    '</ds:CanonicalizationMethod><ds:SignatureMethod Algorithm="{algorithm}"></ds:SignatureMethod>'
    "{references}</ds:SignedInfo>"
)
_SIGNATURE = (
    f'<ds:Signature xmlns:ds="{ns.DS}">{{signed_info}}<ds:SignatureValue>{{value}}</ds:SignatureValue>'
    "<ds:KeyInfo>{key_info}</ds:KeyInfo></ds:Signature>"
)


def element_reference(wsu_id: str, digest: bytes) -> Reference:
    """The reference to an element of the envelope by an id of ours."""
    return Reference("#" + wsu_id, _EXCLUSIVE, ns.SHA256, digest, encode_base64(digest))


def part_reference(cid: str, digest: bytes) -> Reference:
    """The reference to a part. Raises `ValueInconsistent` for a Content-ID that peers would misread."""
    if not _CONTENT_ID.fullmatch(cid):
        raise ValueInconsistent("a Content-ID beyond A-Z a-z 0-9 . _ @ -", where="eb:PartInfo/@href")
    return Reference("cid:" + cid, _ATTACHMENT, ns.SHA256, digest, encode_base64(digest))


def signed_info(algorithm: str, references: Sequence[Reference]) -> str:
    """ds:SignedInfo in exclusive canonical form; the same references give the same octets."""
    return _SIGNED_INFO.format(
        algorithm=algorithm,
        references="".join(
            _REFERENCE.format(
                uri=reference.uri,
                transform=reference.transforms[0].algorithm,
                method=reference.digest_method,
                digest=reference.digest_text,
            )
            for reference in references
        ),
    )


def sign(key: SigningKey, references: Sequence[Reference], *, token: TokenReference, token_id: str) -> tuple[str, str]:
    """(BinarySecurityToken or "", ds:Signature). The token stands before the signature [bsp R5205]."""
    info = signed_info(key.algorithm, references)
    value = encode_base64(key.sign(info.encode("ascii")))
    token_xml, key_info = write_reference(token, key.certificate, key.chain, token_id)
    return token_xml, _SIGNATURE.format(signed_info=info, value=value, key_info=key_info)
