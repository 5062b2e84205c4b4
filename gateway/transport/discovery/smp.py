"""SMP: what a publisher says about a participant, in versions 1.0 and 2.0 of OASIS BDXR [as4 4.10 step B].

Pure: names of resources, and what stands in service metadata that has been verified already. The
answer must be about what was asked for, participant, document and process; of its endpoints the one
with the wanted transport profile counts, in the time it is for.
"""

import re
from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Literal
from urllib.parse import quote

from msgspec import Struct

from gateway.as4.pmode import Identifier
from gateway.as4.wss.algorithms import decode_base64
from gateway.as4.xml import Element
from gateway.errors import DiscoveryFailed
from gateway.transport.discovery.identifiers import EBCORE, canonical, is_ebcore

V1 = "http://docs.oasis-open.org/bdxr/ns/SMP/2016/05"
V2 = "http://docs.oasis-open.org/bdxr/ns/SMP/2/ServiceMetadata"
V2A = "http://docs.oasis-open.org/bdxr/ns/SMP/2/AggregateComponents"
V2B = "http://docs.oasis-open.org/bdxr/ns/SMP/2/BasicComponents"
#: What a certificate of SMP 2.0 is for; one without a word is for both.
EXCHANGE, SIGNATURE = "http://www.w3.org/2002/03/xkms#Exchange", "http://www.w3.org/2002/03/xkms#Signature"
V2_PATH = "bdxr-smp-2"

MAX_CERTIFICATE = 16 << 10
_DATE = re.compile(r"\d{4}-\d\d-\d\d")

Version = Literal["1.0", "2.0"]


class Query(Struct, frozen=True):
    """What is looked for."""

    participant: Identifier
    document: Identifier
    process: Identifier
    transport_profile: str


class Found(Struct, frozen=True):
    """An access point: where it is, whom to encrypt to, who signs its answers (DER, any number)."""

    endpoint: str
    encryption: bytes
    signing: tuple[bytes, ...]
    #: When the publisher says that this ends; None: it does not say.
    until: datetime | None = None


class Redirect(Struct, frozen=True):
    """Another publisher has it. `uid` (1.0) and `certificates` (2.0) say who must have signed there."""

    url: str
    uid: str | None = None
    certificates: tuple[bytes, ...] = ()


def metadata_url(base: str, query: Query, version: Version, participant_path: Literal["urn", "scheme"]) -> str:
    """The URL of the service metadata below a publisher's base URL."""
    base = base.rstrip("/")
    if version == "2.0":
        base = f"{base}/{V2_PATH}"
    participant = canonical(query.participant) if participant_path == "urn" and is_ebcore(query.participant) else None
    who = participant or _joined(query.participant)
    return f"{base}/{_segment(who)}/services/{_segment(_joined(query.document))}"


def redirected(redirect: Redirect, query: Query, version: Version, participant_path: Literal["urn", "scheme"]) -> str:
    """Where a redirect leads: in 1.0 to the resource, in 2.0 to a publisher, which some write as the resource."""
    if version == "1.0" or "/services/" in redirect.url:
        return redirect.url
    return metadata_url(redirect.url, query, version, participant_path)


def read(root: Element, query: Query, version: Version, now: datetime, host: str) -> Found | Redirect:
    """What verified metadata says to a query. Raises `DiscoveryFailed`:
    not-metadata, other-metadata, no-process, no-endpoint, not-active, expired, certificate."""
    return (_read_1 if version == "1.0" else _read_2)(root, query, now, host)


# -- version 1.0 ----------------------------------------------------------------


def _read_1(root: Element, query: Query, now: datetime, host: str) -> Found | Redirect:
    if root.tag != f"{{{V1}}}SignedServiceMetadata":
        raise DiscoveryFailed("not-metadata", f"{host}: its answer is not SMP 1.0 service metadata")
    metadata = _one(root, V1, "ServiceMetadata", host)
    redirect = metadata.find(f"{{{V1}}}Redirect")
    if redirect is not None:
        return Redirect(redirect.get("href", ""), uid=_text(redirect, V1, "CertificateUID"))
    information = _one(metadata, V1, "ServiceInformation", host)
    said = _identifier(_one(information, V1, "ParticipantIdentifier", host), "scheme")
    _expect(_folded(said) == _folded(query.participant), "participant", host)
    said = _identifier(_one(information, V1, "DocumentIdentifier", host), "scheme")
    _expect(said == query.document, "document", host)
    processes = [
        process
        for process in information.iterfind(f"{{{V1}}}ProcessList/{{{V1}}}Process")
        if _identifier(_one(process, V1, "ProcessIdentifier", host), "scheme") == query.process
    ]
    if not processes:
        raise DiscoveryFailed("no-process", f"{host}: the participant does not take part in the process")
    endpoints = [e for p in processes for e in p.iterfind(f"{{{V1}}}ServiceEndpointList/{{{V1}}}Endpoint")]
    fitting = [e for e in endpoints if e.get("transportProfile") == query.transport_profile]
    endpoint, until = _active(
        [(e, _text(e, V1, "ServiceActivationDate"), _text(e, V1, "ServiceExpirationDate")) for e in fitting],
        query, now, host,
    )  # fmt: skip
    certificate = _certificate(_text(endpoint, V1, "Certificate"), host)
    return Found(_text(endpoint, V1, "EndpointURI") or "", certificate, (certificate,), until)


# -- version 2.0 ----------------------------------------------------------------


def _read_2(root: Element, query: Query, now: datetime, host: str) -> Found | Redirect:
    if root.tag != f"{{{V2}}}ServiceMetadata":
        raise DiscoveryFailed("not-metadata", f"{host}: its answer is not SMP 2.0 service metadata")
    said = _identifier(_one(root, V2B, "ParticipantID", host), "schemeID")
    _expect(_folded(said) == _folded(query.participant), "participant", host)
    _expect(_identifier(_one(root, V2B, "ID", host), "schemeID") == query.document, "document", host)
    found = _process_2(root, query)
    if not found:
        raise DiscoveryFailed("no-process", f"{host}: the participant does not take part in the process")
    for metadata in found:
        redirect = metadata.find(f"{{{V2A}}}Redirect")
        if redirect is not None:
            certificates = tuple(_certificate(text, host) for _, text in _certificates_2(redirect))
            return Redirect(_text(redirect, V2B, "PublisherURI") or "", certificates=certificates)
    endpoints = [e for metadata in found for e in metadata.iterfind(f"{{{V2A}}}Endpoint")]
    fitting = [e for e in endpoints if _text(e, V2B, "TransportProfileID") == query.transport_profile]
    endpoint, until = _active(
        [(e, _text(e, V2B, "ActivationDate"), _text(e, V2B, "ExpirationDate")) for e in fitting], query, now, host
    )
    try:
        certificates = [(kind, _certificate(text, host)) for kind, text in _certificates_2(endpoint, now)]
    except (ValueError, OverflowError):
        raise DiscoveryFailed("not-metadata", f"{host}: a date of a certificate cannot be read") from None
    encryption = [der for kind, der in certificates if kind in (EXCHANGE, None)]
    signing = tuple(der for kind, der in certificates if kind in (SIGNATURE, None))
    if not encryption:
        raise DiscoveryFailed("certificate", f"{host}: the endpoint has no certificate to encrypt to")
    return Found(_text(endpoint, V2B, "AddressURI") or "", encryption[0], signing, until)


def _process_2(root: Element, query: Query) -> list[Element]:
    """The metadata of the process; that for no process in particular where none names it."""
    for_any = []
    for metadata in root.iterfind(f"{{{V2A}}}ProcessMetadata"):
        processes = metadata.findall(f"{{{V2A}}}Process")
        ids = [p.find(f"{{{V2B}}}ID") for p in processes]
        if any(id is not None and _identifier(id, "schemeID") == query.process for id in ids):
            return [metadata]
        if not processes:
            for_any.append(metadata)
    return for_any


def _certificates_2(parent: Element, now: datetime | None = None) -> Iterator[tuple[str | None, str | None]]:
    for element in parent.iterfind(f"{{{V2A}}}Certificate"):
        if now is not None:
            since, until = _moment(_text(element, V2B, "ActivationDate")), _end(_text(element, V2B, "ExpirationDate"))
            if (since is not None and now < since) or (until is not None and now >= until):
                continue
        yield _text(element, V2B, "TypeCode"), _text(element, V2B, "ContentBinaryObject")


# -- both -----------------------------------------------------------------------


def _active(
    endpoints: Sequence[tuple[Element, str | None, str | None]], query: Query, now: datetime, host: str
) -> tuple[Element, datetime | None]:
    """The endpoint in force, the longest one, and until when. Raises `DiscoveryFailed`."""
    if not endpoints:
        what = f"the participant has no endpoint with the transport profile {query.transport_profile}"
        raise DiscoveryFailed("no-endpoint", f"{host}: {what}")
    refused = DiscoveryFailed("expired", f"{host}: the participant's endpoint has expired")
    found: list[tuple[datetime | None, Element]] = []
    for endpoint, since, until in endpoints:
        try:
            begin, end = _moment(since), _end(until)
        except (ValueError, OverflowError):
            raise DiscoveryFailed("not-metadata", f"{host}: a date of an endpoint cannot be read") from None
        if begin is not None and now < begin:
            what = f"the participant's endpoint is not active before {begin:%Y-%m-%d}"
            refused = DiscoveryFailed("not-active", f"{host}: {what}")
        elif end is None or now < end:
            found.append((end, endpoint))
    if not found:
        raise refused
    end, endpoint = max(found, key=lambda pair: (pair[0] is None, pair[0] or now))
    return endpoint, end


def _moment(text: str | None) -> datetime | None:
    """An xs:date or xs:dateTime; without a zone it is UTC. Raises `ValueError`."""
    if not text:
        return None
    if _DATE.fullmatch(text[:10]) and (len(text) == 10 or text[10:] == "Z"):
        day = date.fromisoformat(text[:10])
        return datetime(day.year, day.month, day.day, tzinfo=UTC)
    moment = datetime.fromisoformat(text[:64])
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _end(text: str | None) -> datetime | None:
    """The moment something ends; a date is still part of it."""
    moment = _moment(text)
    return moment + timedelta(days=1) if moment is not None and len(text or "") <= 11 else moment


def _certificate(text: str | None, host: str) -> bytes:
    """A certificate as base64, bare or with the lines of PEM around it, or base64 of PEM."""
    try:
        octets = decode_base64(_bare(text or ""))
        if octets.startswith(b"-----BEGIN"):
            octets = decode_base64(_bare(octets.decode("ascii")))
    except ValueError:
        octets = b""
    if not 0 < len(octets) <= MAX_CERTIFICATE:
        raise DiscoveryFailed("certificate", f"{host}: a certificate of the answer cannot be read")
    return octets


def _bare(text: str) -> str:
    return re.sub(r"-----(?:BEGIN|END) CERTIFICATE-----", "", text)


def _one(parent: Element, namespace: str, name: str, host: str) -> Element:
    found = parent.findall(f"{{{namespace}}}{name}")
    if len(found) != 1:
        raise DiscoveryFailed("not-metadata", f"{host}: its answer has not exactly one {name}")
    return found[0]


def _text(parent: Element, namespace: str, name: str) -> str | None:
    element = parent.find(f"{{{namespace}}}{name}")
    return None if element is None else (element.text or "").strip()


def _identifier(element: Element, attribute: str) -> Identifier:
    return Identifier((element.text or "").strip(), element.get(attribute) or None)


def _expect(right: bool, what: str, host: str) -> None:
    if not right:
        raise DiscoveryFailed("other-metadata", f"{host}: its answer is about another {what}")


def _folded(participant: Identifier) -> str:
    """How participants are compared: without case, as they are located, and an ebCore id in either of its forms."""
    if is_ebcore(participant) or (participant.scheme is None and participant.value.startswith(EBCORE)):
        return canonical(participant).lower()
    return _joined(participant).lower()


def _joined(identifier: Identifier) -> str:
    return f"{identifier.scheme or ''}::{identifier.value}"


def _segment(text: str) -> str:
    return quote(text, safe="")
