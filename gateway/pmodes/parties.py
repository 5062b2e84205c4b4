"""The parties of agreement files, with the certificates they name."""

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from gateway.as4.pmode import Party
from gateway.as4.units import PartyId
from gateway.as4.wss.algorithms import UNREADABLE
from gateway.config.strict import suggestion
from gateway.errors import ConfigError
from gateway.pmodes.agreements import Document
from gateway.pmodes.agreements import Party as Table

MAX_CERTIFICATE_FILE = 64 << 10
ABSOLUTE_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+")


def parties_of(documents: Sequence[Document], certs: Path | None) -> dict[str, Party]:
    """Every party of every file under its name. Raises `ConfigError`."""
    partners = {name for document in documents for name in document.file.parties if name != document.file.own}
    tables: dict[str, tuple[Table, Document]] = {}
    ids: dict[PartyId, tuple[str, Document]] = {}
    made: dict[str, Party] = {}
    for document in documents:
        own = document.file.own
        if own not in document.file.parties:
            raise ConfigError(
                f"there is no party {own!r}", file=document.name, key="self",
                hint=suggestion(own, document.file.parties),
            )  # fmt: skip
        for name, table in document.file.parties.items():
            where = f"parties.{name}"
            first, other = tables.setdefault(name, (table, document))
            if first != table:
                raise ConfigError(
                    f"says something else than {other.name}", file=document.name, key=where,
                    hint="a party is the same in every file",
                )  # fmt: skip
            if name in made:
                continue
            # Our keys come from the keyring; a file that all partners share may name ours, too.
            made[name] = party(name, table, document, certs, certificates=name in partners)
            twin, other = ids.setdefault(made[name].party_id, (name, document))
            if twin != name:
                raise ConfigError(f"has the same id as {twin} in {other.name}", file=document.name, key=where)
    return made


def ourselves(own: Party) -> Party:
    """A party as our own: without certificates."""
    return msgspec.structs.replace(own, signing=(), encryption=None, tls_ca=None)


def party(
    name: str, table: Table, document: Document, certs: Path | None = None, *, certificates: bool = True
) -> Party:
    """A party, with what its certificate files hold. Raises `ConfigError`."""
    where = f"parties.{name}"
    party_id = table.id or name
    if table.type is None and not ABSOLUTE_URI.fullmatch(party_id):
        raise ConfigError(
            "is missing: without a type a party id must be a URI", file=document.name, key=f"{where}.type",
            hint='national access points have "urn:oasis:names:tc:ebcore:partyid-type:unregistered:XX"',
        )  # fmt: skip
    refuse_blanks(party_id, document, f"{where}.id")
    if table.type is not None:
        refuse_blanks(table.type, document, f"{where}.type")
    if table.endpoint is not None and (wrong := endpoint_fault(table.endpoint, document.file.allow_http)):
        raise ConfigError(wrong, file=document.name, key=f"{where}.endpoint")
    made = Party(name=name, party_id=PartyId(party_id, table.type), endpoint=table.endpoint)
    if not certificates:
        return made

    def certificate(file: str | None, key: str) -> bytes | None:
        return _certificate(file, document, certs, f"{where}.{key}") if file else None

    both = certificate(table.certificate, "certificate")
    signing = (both or certificate(table.signing, "signing"), certificate(table.next, "next"))
    return msgspec.structs.replace(
        made,
        signing=tuple(dict.fromkeys(c for c in signing if c)),
        encryption=both or certificate(table.encryption, "encryption"),
        tls_ca=_anchors(table.tls_ca, document, certs, f"{where}.tls_ca") if table.tls_ca else None,
    )


def endpoint_fault(url: str, allow_http: bool) -> str | None:
    """What makes a URL unusable as an endpoint, or None."""
    if re.search(r"[\s\x00-\x1f\x7f]", url):
        return "has a blank in the URL"
    match = re.fullmatch(r"(https?)://(\[[0-9A-Fa-f:.]+\]|[^/?#@:\[\]]+)(?::(\d{1,5}))?(/[^#]*)?", url)
    if not match or not 0 < int(match[3] or 443) < 65_536:
        return "is not a URL of the form https://host/path"
    if match[1] == "http" and not allow_http:
        return "is plain http; partners are reached over https (allow_http = true is for tests on one machine)"
    return None


def refuse_blanks(text: str, document: Document, key: str) -> None:
    """Values that stand in the header as they are, and are compared octet by octet."""
    if not text or text != text.strip() or re.search(r"[\x00-\x1f\x7f<>]", text):
        raise ConfigError(
            "is empty, or has a blank at an end, or a character that breaks the wire", file=document.name, key=key
        )


def _certificate(file: str, document: Document, certs: Path | None, key: str) -> bytes:
    """The one certificate of a file, PEM or DER; of a chain the one that issued no other."""
    found = _certificates(file, document, certs, key)
    issuers = {c.issuer for c in found if c.issuer != c.subject}
    leaves = {c.public_bytes(Encoding.DER) for c in found if len(found) == 1 or c.subject not in issuers}
    if len(leaves) != 1:
        raise ConfigError(
            f"{file} holds {len(found)} certificates", file=document.name, key=key,
            hint="give the certificate of the party alone, or with its chain",
        )  # fmt: skip
    return leaves.pop()


def _anchors(file: str, document: Document, certs: Path | None, key: str) -> bytes:
    """The CAs of a file as PEM."""
    return b"".join(c.public_bytes(Encoding.PEM) for c in _certificates(file, document, certs, key))


def _certificates(file: str, document: Document, certs: Path | None, key: str) -> list[x509.Certificate]:
    octets = _file(file, document, certs, key)
    try:
        if b"-----BEGIN" in octets:
            return x509.load_pem_x509_certificates(octets)
        return [x509.load_der_x509_certificate(octets)]
    except UNREADABLE:
        raise ConfigError(
            f"{file} is not a certificate in PEM or DER", file=document.name, key=key,
            hint="`gateway certs show FILE` says what it is",
        ) from None  # fmt: skip


def _file(file: str, document: Document, certs: Path | None, key: str) -> bytes:
    """A file beside the agreement or in the certs folder."""
    places = [document.path.parent / file, *([certs / file] if certs else [])]
    for place in places:
        try:
            with place.open("rb") as source:
                octets = source.read(MAX_CERTIFICATE_FILE + 1)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise ConfigError(f"{place} cannot be read: {error.strerror}", file=document.name, key=key) from None
        if len(octets) > MAX_CERTIFICATE_FILE:
            raise ConfigError(f"{place} is too large for a certificate", file=document.name, key=key)
        return octets
    looked = " and no ".join(str(place) for place in places)
    raise ConfigError(f"there is no {looked}", file=document.name, key=key)
