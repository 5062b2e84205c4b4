"""BDXL: where the service metadata of a participant is published, asked of DNS [as4 4.10 step A].

    NAPTR    base32(sha256(id)).scheme.zone  U "Meta:SMP" "!.*!https://smp.example.com/base!"
    CNAME    B-md5(id).scheme.zone → the publisher's host, over plain http

The second is what Peppol began with and Domibus still asks for. The id is hashed in lower case, as
the locator does when it publishes; an ebCore party id is hashed as the whole URN and has no scheme
in the name.

Nothing here is proof: DNSSEC is not checked, an answer may be anybody's. What is found by it must be
signed by a publisher the agreement trusts. A record's regular expression is never run: RFC 4848 allows
one that matches everything, and any other is refused.
"""

import base64
import hashlib
import ipaddress
import re
from collections.abc import Sequence
from typing import Literal

import dns.asyncresolver
import dns.exception
import dns.name
import dns.nameserver
import dns.rdatatype
import dns.resolver

from gateway.as4.pmode import Identifier
from gateway.errors import ConfigError, DiscoveryFailed
from gateway.transport.discovery.identifiers import canonical, is_ebcore

SERVICE = "meta:smp"
#: Records of one answer that are looked at; a participant has one.
MAX_RECORDS = 16
#: Publishers of one participant that are tried.
MAX_PUBLISHERS = 3
#: Records that only name another name are followed so often, and never twice to one place.
MAX_HOPS = 4

#: What matches everything; the only patterns U-NAPTR has [RFC 4848, 2.2].
_EVERYTHING = frozenset({".*", "^.*$", "^.*", ".*$"})
_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")


def name_of(participant: Identifier, zone: str, lookup: Literal["naptr", "cname"] = "naptr") -> str:
    """The DNS name of a participant in `zone`. Raises `DiscoveryFailed` for a scheme that cannot stand in one."""
    scheme = None if is_ebcore(participant) else participant.scheme
    value = canonical(participant).lower().encode()
    if lookup == "cname":
        label = "B-" + hashlib.md5(value, usedforsecurity=False).hexdigest()
    else:
        label = base64.b32encode(hashlib.sha256(value).digest()).decode().rstrip("=").lower()
    if scheme is not None and not _LABEL.fullmatch(scheme):
        raise DiscoveryFailed("identifier", f"the participant scheme {scheme[:80]!r} cannot stand in a DNS name")
    return ".".join(part for part in (label, scheme, zone.strip(".")) if part)


class Locator:
    """Asks DNS servers. One a process; `servers` are ADDRESS or ADDRESS:PORT, none for those of the system."""

    def __init__(self, servers: Sequence[str] = (), timeout: float = 5.0) -> None:
        self._servers, self._timeout = [nameserver(text) for text in servers], timeout
        self._resolver: dns.asyncresolver.Resolver | None = None

    async def publishers(
        self, participant: Identifier, zone: str, lookup: Literal["naptr", "cname"] = "naptr"
    ) -> list[str]:
        """Base URLs of the participant's publishers, the preferred one first; at least one.

        Raises `DiscoveryFailed`: not-registered, locator-answer (a record that is no U-NAPTR), dns (temporary).
        """
        name = name_of(participant, zone, lookup)
        if lookup == "cname":
            await self._ask(name, "A")
            return [f"http://{name}/"]
        return await self._naptr(name)

    async def _naptr(self, name: str) -> list[str]:
        seen: set[str] = set()
        for _ in range(MAX_HOPS):
            seen.add(name)
            records = await self._ask(name, "NAPTR")
            if len(records) > MAX_RECORDS:
                raise DiscoveryFailed("locator-answer", f"{name} has {len(records)} NAPTR records")
            ours = [r for r in records if r.service.decode("latin-1").lower() == SERVICE]
            ours.sort(key=lambda record: (record.order, record.preference))
            terminal = [record for record in ours if record.flags.lower() == b"u"]
            if terminal:
                return [_address(name, record.regexp) for record in terminal[:MAX_PUBLISHERS]]
            further = [r for r in ours if not r.flags and r.replacement != dns.name.root]
            if not further:
                raise DiscoveryFailed("not-registered", f"{name} has no NAPTR record with a U flag for {SERVICE}")
            name = further[0].replacement.to_text(omit_final_dot=True).lower()
            if name in seen:
                break
        raise DiscoveryFailed("locator-answer", f"the NAPTR records of {name} lead nowhere")

    async def _ask(self, name: str, kind: str) -> list:
        """The records of a name. Raises `DiscoveryFailed`."""
        try:
            answer = await self._ready().resolve(
                name, kind, search=False, lifetime=self._timeout, raise_on_no_answer=False
            )
        except dns.resolver.NXDOMAIN:
            raise DiscoveryFailed("not-registered", f"there is no {name} in DNS") from None
        except (dns.resolver.NoResolverConfiguration, OSError) as error:
            raise DiscoveryFailed("dns", f"no DNS server can be asked: {error}", temporary=True) from None
        except (dns.name.LabelTooLong, dns.name.NameTooLong, dns.name.EmptyLabel):
            raise DiscoveryFailed("identifier", f"{name[:300]!r} is no DNS name") from None
        except dns.exception.DNSException as error:
            # Timeouts, SERVFAIL, broken packets, CNAME chains without end: the name may exist or not.
            kind = type(error).__name__
            raise DiscoveryFailed("dns", f"{name}: DNS gives no answer ({kind})", temporary=True) from None
        records = list(answer.rrset or ())
        if not records:
            raise DiscoveryFailed("not-registered", f"{name} has no {kind} record in DNS")
        return records

    def _ready(self) -> dns.asyncresolver.Resolver:
        if self._resolver is None:
            resolver = dns.asyncresolver.Resolver(configure=not self._servers)
            if self._servers:
                resolver.nameservers = self._servers
            resolver.cache = None  # answers are cached when they have been verified, and not before
            self._resolver = resolver
        return self._resolver


def nameserver(text: str) -> dns.nameserver.Nameserver:
    """`192.0.2.53`, `192.0.2.53:5353`, `[2001:db8::53]:5353`. Raises `ConfigError`."""
    match = re.fullmatch(r"\[([0-9A-Fa-f:.]+)\](?::(\d{1,5}))?|([0-9.]+)(?::(\d{1,5}))?|([0-9A-Fa-f:]+)", text)
    if match is None:
        raise ConfigError(f"{text!r} is not the address of a DNS server", key="discovery.dns_servers",
                          hint="write 192.0.2.53, 192.0.2.53:5353 or [2001:db8::53]:5353")  # fmt: skip
    address, port = match[1] or match[3] or match[5], int(match[2] or match[4] or 53)
    try:
        ipaddress.ip_address(address)
        return dns.nameserver.Do53Nameserver(address, port)
    except ValueError as error:
        raise ConfigError(str(error), key="discovery.dns_servers") from None


def _address(name: str, regexp: bytes) -> str:
    """The URL in the regexp field of a U-NAPTR. Raises `DiscoveryFailed`."""
    text = regexp.decode("latin-1")
    pieces = text[1:].split(text[0]) if text else []
    # delimiter, pattern, delimiter, replacement, delimiter, flags
    if len(pieces) != 3 or pieces[0] not in _EVERYTHING or pieces[2].lower() not in ("", "i"):
        raise DiscoveryFailed("locator-answer", f"{name}: the regexp of its NAPTR record is not of the form !.*!URL!")
    url = pieces[1]
    if "\\" in url or not re.match(r"https?://", url, re.IGNORECASE):
        raise DiscoveryFailed("locator-answer", f"{name}: its NAPTR record names no http or https URL")
    return url
