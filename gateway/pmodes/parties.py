"""The parties of agreement files, with the certificates they name."""

import re
from collections.abc import Sequence

import msgspec

from gateway.as4.pmode import Party
from gateway.as4.units import PartyId
from gateway.config.places import dotted
from gateway.config.strict import suggestion
from gateway.errors import ConfigError
from gateway.pmodes.agreements import Document, File
from gateway.pmodes.agreements import Party as Table
from gateway.pmodes.certificates import certificate_in, pem_in
from gateway.pmodes.dynamic import trust_of
from gateway.pmodes.updates import updates_of

ABSOLUTE_URI = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:\S+")


def parties_of(documents: Sequence[Document]) -> dict[str, Party]:
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
            where = dotted("parties", name)
            first, other = tables.setdefault(name, (table, document))
            if first != table:
                raise ConfigError(
                    f"says something else than {other.name}", file=document.name, key=where,
                    hint="a party is the same in every file",
                )  # fmt: skip
            if name in made:
                continue
            # Our keys come from the keyring; a file that all partners share may name ours, too.
            made[name] = party(name, table, document, certificates=name in partners)
            twin, other = ids.setdefault(made[name].party_id, (name, document))
            if twin != name:
                raise ConfigError(
                    f"has the same id as {twin} in {other.name}", file=document.name, key=where, rule="P005"
                )
    return made


def ourselves(own: Party) -> Party:
    """A party as our own: without certificates."""
    return msgspec.structs.replace(own, signing=(), encryption=None, tls_ca=None, trust=None, next=None, previous=None,
                                   next_encryption=None, updates=None)  # fmt: skip


def party(name: str, table: Table, document: Document, *, certificates: bool = True) -> Party:
    """A party, with what its certificate files hold. Raises `ConfigError`."""
    where = dotted("parties", name)
    party_id = "*" if table.any else table.id or name
    if table.type is None and not ABSOLUTE_URI.fullmatch(party_id):
        raise ConfigError(
            "is missing: without a type a party id must be a URI", file=document.name, key=f"{where}.type",
            hint='national access points have "urn:oasis:names:tc:ebcore:partyid-type:unregistered:XX"',
        )  # fmt: skip
    refuse_blanks(party_id, document.name, f"{where}.id")
    if table.type is not None:
        refuse_blanks(table.type, document.name, f"{where}.type")
    if table.endpoint is not None and (fault := endpoint_fault(table.endpoint, plain_http(table, document.file))):
        rule, wrong = fault
        raise ConfigError(wrong, file=document.name, key=f"{where}.endpoint", rule=rule)
    made = Party(
        name=name, party_id=PartyId(party_id, table.type), endpoint=table.endpoint, pattern=table.any,
        revocation=table.revocation,
    )  # fmt: skip
    if not certificates:
        return made

    def certificate(file: str | None, key: str) -> bytes | None:
        return certificate_in(file, document, f"{where}.{key}") if file else None

    both = certificate(table.certificate, "certificate")
    coming, gone = certificate(table.next, "next"), certificate(table.previous, "previous")
    signing = (both or certificate(table.signing, "signing"), coming, gone)
    return msgspec.structs.replace(
        made,
        signing=tuple(dict.fromkeys(c for c in signing if c)),
        next=coming,
        previous=gone,
        next_encryption=certificate(table.next_encryption, "next_encryption"),
        encryption=both or certificate(table.encryption, "encryption"),
        tls_ca=pem_in(table.tls_ca, document, f"{where}.tls_ca") if table.tls_ca else None,
        trust=trust_of(table.trust, document, f"{where}.trust") if table.trust else None,
        updates=updates_of(table.updates, document, f"{where}.updates") if table.updates else None,
    )


def plain_http(table: Table, file: File) -> bool:
    """Whether this party may be reached over plain http."""
    return file.allow_http if table.allow_http is None else table.allow_http


def endpoint_fault(url: str, allow_http: bool) -> tuple[str, str] | None:
    """What makes a URL unusable as an endpoint: the lint rule and the words; or None."""
    if re.search(r"[\s\x00-\x1f\x7f]", url):
        return "P001", "has a blank in the URL"
    match = re.fullmatch(r"(https?)://(\[[0-9A-Fa-f:.]+\]|[^/?#@:\[\]]+)(?::(\d{1,5}))?(/[^#]*)?", url)
    if not match or not 0 < int(match[3] or 443) < 65_536:
        return "P000", "is not a URL of the form https://host/path"
    if match[1] == "http" and not allow_http:
        return "P002", "is plain http; partners are reached over https (allow_http = true is for tests on one machine)"
    return None


def refuse_blanks(text: str, file: str, key: str) -> None:
    """Values that stand in the header as they are, and are compared octet by octet."""
    if not text or text != text.strip() or re.search(r"[\x00-\x1f\x7f<>]", text):
        raise ConfigError(
            "is empty, or has a blank at an end, or a character that breaks the wire", file=file, key=key
        )
