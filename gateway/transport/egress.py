"""Where the gateway may connect to.

Two kinds of purpose, two rules. The endpoints of partners (`as4`) are written by the operator into
agreements and are often on private networks, so everything is allowed there but what can
only be a mistake or an attack: link-local addresses, among them the metadata server of a
cloud, multicast, unspecified and reserved ones. Webhooks (`webhook`) are named by whoever
holds an API token, publishers of service metadata (`smp`) by DNS and by each other, discovered
partners (`discovered`) by publishers, the keys of token issuers (`issuer`) are asked for by whoever
shows a token, CRLs and OCSP responders (`revocation`) by what stands in certificates; so these reach
public addresses only, and others only where the operator lists the network [threats J01].

A URL is judged twice: as it is written (`check_url`), and by every address its name
resolves to (`check_addresses`). The client connects to the addresses that were checked
and to no others, so a name that changes its mind in between gains nothing.

Plain HTTP is the agreement's business towards partners (the message carries its own
security, and lint says what it thinks); towards webhooks and discovered partners it is for listed
networks only. Service metadata, CRLs and OCSP answers are signed, public and often, or nearly always,
served without TLS.

This file decides and does no I/O; `client.py` resolves and connects.
"""

import ipaddress
import re
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

from gateway.errors import ConfigError, SubmissionRefused

Purpose = Literal["as4", "webhook", "smp", "discovered", "issuer", "revocation"]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

#: Never a partner and never a webhook. An allowed network opens one of these only if it lies
#: within it: "0.0.0.0/0" in a configuration is no wish to talk to a metadata server.
NEVER = {
    "link-local": ("169.254.0.0/16", "fe80::/10"),
    "the metadata server of a cloud": ("169.254.169.254/32", "fd00:ec2::254/128", "100.100.100.200/32"),
    "multicast": ("224.0.0.0/4", "ff00::/8"),
    "unspecified": ("0.0.0.0/8", "::/128"),
    "reserved": ("240.0.0.0/4",),
}
#: Not reachable from the internet: the IANA registries of special-purpose addresses (RFC 6890 and its updates).
NOT_PUBLIC = {
    "loopback": ("127.0.0.0/8", "::1/128"),
    "private": ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7", "fec0::/10"),
    "shared by a provider (CGNAT)": ("100.64.0.0/10",),
    "for protocols, documentation or tests": (
        "192.0.0.0/24", "192.0.2.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "192.88.99.0/24", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16",
    ),
}  # fmt: skip
#: IPv6 addresses with an IPv4 address inside; a gateway somewhere may translate them.
NAT64 = tuple(ipaddress.IPv6Network(n) for n in ("64:ff9b::/96", "64:ff9b:1::/48"))
#: Deprecated "IPv4-compatible" addresses.
COMPATIBLE = ipaddress.IPv6Network("::/96")

LISTING = "the operator can list the network in egress.allow_networks"

#: Ports below 1024 belong to other protocols; a URL that others name is no tool to speak SMTP with.
WELL_KNOWN_PORTS = {"https": 443, "http": 80}

_HOST_NAME = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*\.?")
#: What inet_aton would take for an address: 2130706433, 0x7f.1, 0177.0.0.1.
_NUMERIC = re.compile(r"(.*\.)?(0x[0-9a-f]*|[0-9]+)\.?")


class Target(NamedTuple):
    """A URL that may be tried, in the pieces a client needs. `path` includes the query."""

    scheme: str
    host: str
    port: int
    path: str

    @property
    def origin(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"


class EgressPolicy:
    """What the configuration allows: `allow_networks` are CIDR texts that any purpose may reach.

    Raises `ConfigError` for a text that is no network.
    """

    def __init__(self, allow_networks: Sequence[str] = ()) -> None:
        self._allowed = _networks(allow_networks, "allow_networks")

    def check_url(self, url: str, purpose: Purpose) -> Target:
        """The pieces of `url`. Raises `SubmissionRefused` for what may never be tried, whatever
        its name resolves to."""
        if len(url) > 2048 or not url.isascii() or not url.isprintable() or " " in url or "\\" in url:
            raise _refused("the URL contains characters that do not belong there, or is too long")
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise _refused("this is not a URL") from None
        if parts.scheme not in ("https", "http"):
            raise _refused(f"only https is spoken here, not {parts.scheme[:20] or 'nothing'}")
        plain = parts.scheme == "http"
        if plain and purpose in ("webhook", "discovered", "issuer") and not self._allowed:
            raise _refused("plain http is not allowed", "use https")
        if "@" in parts.netloc:
            raise _refused("a URL must not carry a user name or password")
        if parts.fragment or url.endswith("#"):
            raise _refused("a URL with a fragment names no endpoint")
        host = (parts.hostname or "").lower()
        port = port if port is not None else WELL_KNOWN_PORTS[parts.scheme]
        if port == 0 or (purpose != "as4" and port < 1024 and port not in WELL_KNOWN_PORTS.values()):
            raise _refused(f"port {port} is not for {'webhooks' if purpose == 'webhook' else 'this'}",
                           "use 443 or a port above 1023")  # fmt: skip
        address = _literal(host, bracketed="[" in parts.netloc)
        if address is not None:
            self.check_addresses([str(address)], purpose, host, plain=plain)
        elif not _HOST_NAME.fullmatch(host) or len(host) > 253 or _NUMERIC.fullmatch(host):
            raise _refused("the host is neither a name nor an address in its usual form")
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return Target(parts.scheme, str(address) if address else host.rstrip("."), port, path)

    def check_addresses(self, addresses: Iterable[str], purpose: Purpose, host: str, *, plain: bool = False) -> None:
        """Every address must be allowed: a name that also points elsewhere is not to be trusted.

        `plain` is for http. Raises `SubmissionRefused`; its text does not contain the address,
        because whoever named a host is not to learn by it what our resolver knows.
        """
        for text in addresses:
            try:
                address = ipaddress.ip_address(text.partition("%")[0])
            except ValueError:
                raise _refused(f"{host} does not resolve to an address") from None
            for one in (address, *_inside(address)):
                if self._is_listed(one):
                    continue
                never = _kind(one, _NEVER)
                if why := never or (_kind(one, _NOT_PUBLIC) if purpose != "as4" else None):
                    raise _refused(f"{host} is at an address that is {why[0]}", LISTING if purpose != "as4" else "")
                if plain and purpose in ("webhook", "discovered", "issuer") and one is address:
                    raise _refused("plain http is for networks of the operator only", "use https")

    def _is_listed(self, address: Address) -> bool:
        never = _kind(address, _NEVER)
        return any(
            network.version == address.version
            and address in network
            and (never is None or any(network.subnet_of(n) for n in never[1] if n.version == network.version))
            for network in self._allowed
        )


def _networks(texts: Sequence[str], key: str) -> tuple[Network, ...]:
    try:
        return tuple(ipaddress.ip_network(text) for text in texts)
    except ValueError as error:
        raise ConfigError(str(error), key=f"egress.{key}", hint="write networks as 10.1.0.0/16 or fd00::/8") from None


_Kinds = tuple[tuple[str, tuple[Network, ...]], ...]
_NEVER: _Kinds = tuple((name, _networks(texts, name)) for name, texts in NEVER.items())
_NOT_PUBLIC: _Kinds = tuple((name, _networks(texts, name)) for name, texts in NOT_PUBLIC.items())


def _kind(address: Address, kinds: _Kinds) -> tuple[str, tuple[Network, ...]] | None:
    """The last kind that holds `address`: the narrow ones stand behind the wide ones."""
    found = None
    for name, networks in kinds:
        if any(n.version == address.version and address in n for n in networks):
            found = (name, networks)
    return found


def _inside(address: Address) -> tuple[Address, ...]:
    """The IPv4 addresses an IPv6 address leads to."""
    if not isinstance(address, ipaddress.IPv6Address):
        return ()
    if address.ipv4_mapped is not None:
        return (address.ipv4_mapped,)
    if address.sixtofour is not None:
        return (address.sixtofour,)
    if address.teredo is not None:
        return address.teredo
    if any(address in network for network in NAT64) or (address in COMPATIBLE and int(address) > 1):
        return (ipaddress.IPv4Address(int(address) & 0xFFFFFFFF),)
    return ()


def _literal(host: str, *, bracketed: bool) -> Address | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return address if bracketed == (address.version == 6) else None


def _refused(detail: str, hint: str = "") -> SubmissionRefused:
    return SubmissionRefused(detail, field="url", hint=hint)
