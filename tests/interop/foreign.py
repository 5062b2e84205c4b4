"""Messages as other stacks write them: any XML, any layout, signed as it stands.

`foreign` writes a message as text with blanks for digests and signature, lets a test rewrite
that text, and only then digests and signs what it finds there: with lxml and OpenSSL, not with
the gateway's code. So prefixes, white space, ids, order and PrefixLists can be anybody's.
"""

import base64
import hashlib
import os
from collections.abc import Callable, Sequence

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from lxml import etree

from gateway.as4 import ns
from gateway.as4.header import write_messaging
from gateway.as4.profiles import PROFILES
from gateway.as4.soap import body_canonical
from gateway.as4.units import UserMessage
from gateway.as4.wss.encrypt import encrypted_data, encrypted_key
from gateway.as4.wss.security import security_header
from gateway.as4.wss.tokens import write_reference
from tests.peer import Peer
from tests.security.forge import Packed, Part

Template = Callable[[str], str]

ID_ATTRIBUTES = (f"{{{ns.WSU}}}Id", "Id", "ID", "id", f"{{{ns.XML}}}id")
#: What stands where a digest and the signature will be.
DIGEST, VALUE = "@digest@", "@signature@"


def reference(uri: str, transform: str = ns.EXC_C14N) -> str:
    return (
        f'<ds:Reference URI="{uri}"><ds:Transforms><ds:Transform Algorithm="{transform}"></ds:Transform></ds:Transforms>'
        f'<ds:DigestMethod Algorithm="{ns.SHA256}"></ds:DigestMethod><ds:DigestValue>{DIGEST}</ds:DigestValue></ds:Reference>'
    )


def signature(references: Sequence[str], algorithm: str, key_info: str) -> str:
    return (
        f'<ds:Signature xmlns:ds="{ns.DS}"><ds:SignedInfo><ds:CanonicalizationMethod Algorithm="{ns.EXC_C14N}">'
        f'</ds:CanonicalizationMethod><ds:SignatureMethod Algorithm="{algorithm}"></ds:SignatureMethod>'
        f"{''.join(references)}</ds:SignedInfo><ds:SignatureValue>{VALUE}</ds:SignatureValue>"
        f"<ds:KeyInfo>{key_info}</ds:KeyInfo></ds:Signature>"
    )


def canonical(element, prefix_list: str | None) -> bytes:
    return etree.tostring(element, method="c14n", exclusive=True, with_comments=False,
                          inclusive_ns_prefixes=prefix_list.split() if prefix_list else None)


def prefix_list(element) -> str | None:
    found = element.find(f"{{{ns.EC}}}InclusiveNamespaces")
    return None if found is None else found.get("PrefixList")


def seal(text: str, key, octets: dict[str, bytes], spelled: Callable[[str], str] = lambda base64_: base64_) -> str:
    """Fill in digests and signature. `octets` are those of parts by the URI of their reference; `spelled` is how
    base64 is written."""
    root = etree.fromstring(text.encode())
    for element in next(root.iter(f"{{{ns.DS}}}SignedInfo")).iter(f"{{{ns.DS}}}Reference"):
        uri = element.get("URI")
        if uri in octets:
            digested = octets[uri]
        else:
            target = next(e for e in root.iter() for name in ID_ATTRIBUTES if e.get(name) == uri[1:])
            digested = canonical(target, prefix_list(element.find(f".//{{{ns.DS}}}Transform")))
        digest = base64.b64encode(hashlib.sha256(digested).digest()).decode()
        text = text.replace(DIGEST, spelled(digest), 1)
    root = etree.fromstring(text.encode())
    info = next(root.iter(f"{{{ns.DS}}}SignedInfo"))
    value = key.sign(canonical(info, prefix_list(info[0])))
    return text.replace(VALUE, spelled(base64.b64encode(value).decode()))


def foreign(
    peer: Peer,
    parts: Sequence[Part] | None = None,
    *,
    template: Template = lambda text: text,
    spelled: Callable[[str], str] = lambda base64_: base64_,
    signed: dict[str, bytes] | None = None,
    octets_of: Callable[[Part], bytes] = lambda part: part.octets,
    token: str = "bst",
    recipient_token: str = "bst",
    encode: Callable[[str], bytes] = str.encode,
    **header,
) -> tuple[Packed, UserMessage]:
    """A message of `peer` with these parts (one small XML document if None), and its header.

    `template` rewrites the whole envelope before it is signed. `octets_of` is what of a part is digested; `signed`
    names octets for other URIs. `encode` turns the finished text into octets.
    """
    parts = [Part(b"<query/>", "application/x-ebrs+xml")] if parts is None else list(parts)
    profile = PROFILES[peer.profile]
    message = peer.header(parts=tuple(p.info() for p in parts if p.href != ""), **header)
    key = peer.keys.signing_key
    content_key = os.urandom(16)
    children: list[str] = []
    if parts:
        ids = [f"ED-{n}" for n, _ in enumerate(parts, 1)]
        children += encrypted_key(content_key, peer.partner_encryption, profile, token=recipient_token,
                                  token_id="recipient", key_id="EK", data_ids=ids, entropy=os.urandom)
        children += [encrypted_data(id, "EK", p.encrypted or p.cid, p.mime, profile.send_encryption)
                     for id, p in zip(ids, parts, strict=True)]
    uris = [p.signed or f"cid:{p.cid}" for p in parts]
    bst, key_info = write_reference(token, key.certificate, key.chain, "signer")
    references = [reference("#m-1"), reference("#b-1"), *(reference(uri, ns.SWA_SIGNATURE) for uri in uris)]
    children += [bst, signature(references, key.algorithm, key_info)]
    text = (
        f'<S12:Envelope xmlns:S12="{ns.S12}"><S12:Header>{security_header(children)}{write_messaging(message, "m-1")}'
        f"</S12:Header>{body_canonical('b-1')}</S12:Envelope>"
    )
    octets = {uri: octets_of(p) for uri, p in zip(uris, parts, strict=True)} | (signed or {})
    envelope = encode(seal(template(text), key, octets, spelled))
    heads = [(b"Content-Type: application/soap+xml; charset=UTF-8\r\nContent-Transfer-Encoding: binary\r\n"
              b"Content-ID: <root@peer.example>", envelope)]
    for part in parts:
        iv = os.urandom(12)
        cid = part.content_id or f"<{part.cid}>"
        heads.append((b"Content-Type: application/octet-stream\r\nContent-Transfer-Encoding: binary\r\nContent-ID: "
                      + cid.encode(), iv + AESGCM(content_key).encrypt(iv, part.octets, None)))
    kind = 'multipart/related; type="application/soap+xml"; boundary="=_foreign"; start="<root@peer.example>"'
    return Packed(kind, b"=_foreign", heads), message
