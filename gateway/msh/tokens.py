"""Signed tokens of OAuth2 issuers (RFC 9068, RFC 7519), judged with the keys the issuer publishes.

The signature is the business of joserfc; what may be signed with what is decided here, before it is asked: the
algorithm must be one the operator allows for this issuer, and the key one of this very issuer whose type fits
that algorithm, so that neither "none" nor a public key used as a secret gets anywhere. Nothing in the header of
a token but `alg` and `kid` is followed: no key, URL or certificate in it is ever looked at.

Whatever is wrong, the caller hears the same (`NotFound`); the reason is for our own log. Only an issuer
whose keys cannot be had is told apart (`Overloaded`), because waiting helps there.

Keys are kept for a while, and for a longer while when the issuer cannot be reached. An unknown `kid` makes
us look again, but not oftener than every half minute, whoever sends tokens.
"""

import asyncio
import hashlib
import hmac
import math
import re
from base64 import urlsafe_b64decode
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from joserfc import jwk, jws
from joserfc.errors import JoseError

from gateway import log
from gateway.clock import Clock
from gateway.config import Issuer
from gateway.errors import GatewayError, NotFound, Overloaded
from gateway.transport.client import Client

#: Tokens of real issuers have one to two thousand characters; a head of a request has room for 32,768.
MAX_TOKEN = 8192
MAX_HEADER, MAX_CLAIMS = 1024, 6144
MAX_NAME = 500
JWKS_BYTES = 256 << 10
MAX_KEYS = 100
FETCH_SECONDS = 5.0
#: After a failed fetch, and after one for the sake of an unknown kid, seconds until the next.
AFTER_FAILURE, AFTER_SURPRISE = 15.0, 30.0
RSA_BITS = range(2048, 8193)
#: Key type and curve that go with an algorithm. The last is the name RFC 9864 gives to what was EdDSA.
KINDS = {"RS256": ("RSA", None), "ES256": ("EC", "P-256"), "EdDSA": ("OKP", "Ed25519"), "Ed25519": ("OKP", "Ed25519")}
#: The members of a public key.
PUBLIC = ("kty", "crv", "x", "y", "n", "e")
TYPES = (None, "jwt", "at+jwt", "application/at+jwt")

_COMPACT = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+")

#: Reads the keys of an issuer. Raises `GatewayError`, `OSError`.
Fetch = Callable[[Issuer], Awaitable[bytes]]


async def no_fetch(issuer: Issuer) -> bytes:
    """Of a gateway without issuers."""
    raise Overloaded(f"the keys of {issuer.issuer} cannot be had here")


def fetcher(client: Client) -> Fetch:
    """Reads the file of an issuer, or asks its URL under the egress policy."""

    async def fetch(issuer: Issuer) -> bytes:
        if issuer.jwks_file is not None:
            return await asyncio.to_thread(_read, issuer.jwks_file)
        ca = None if issuer.ca is None else await asyncio.to_thread(_read, issuer.ca)
        status, octets = await client.get(
            issuer.jwks_url or "", most=JWKS_BYTES, timeout=FETCH_SECONDS, ca=ca, purpose="issuer"
        )
        if status != 200:
            raise ValueError(f"the issuer answered {status}")
        return octets

    return fetch


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(JWKS_BYTES + 1)


class Subject(NamedTuple):
    """Who a token speaks for."""

    issuer: str
    name: str


class _Refused(Exception):
    """A token that is not believed; the text is for our log."""


class _Key(NamedTuple):
    kid: str | None
    kind: tuple[str, str | None]
    algorithm: str | None
    key: Any


class _Registry(jws.JWSRegistry):
    """Exactly the algorithm that is asked for."""

    max_header_length, max_payload_length = MAX_HEADER, MAX_CLAIMS

    def get_alg(self, name: str) -> Any:
        if name not in KINDS or name not in (self.allowed or ()):
            raise _Refused("algorithm")
        return self.algorithms[name]


def is_signed(token: str) -> bool:
    """Whether this is a token of an issuer and not one of ours, which have no dot."""
    return "." in token


class Tokens:
    """Judges tokens of the configured issuers."""

    def __init__(self, issuers: tuple[Issuer, ...], fetch: Fetch, clock: Clock) -> None:
        self._clock = clock
        self._issuers = {issuer.issuer: (issuer, _Keys(issuer, fetch, clock)) for issuer in issuers}

    async def subject(self, token: str, certificate: bytes | None) -> Subject:
        """Who the token speaks for. `certificate` (DER) is that of the TLS connection it came over. Raises
        `NotFound`, `Overloaded`."""
        try:
            return await self._judged(token, certificate)
        except _Refused as refused:
            log.event("token.refused", reason=str(refused))
            raise NotFound("no such client") from None

    async def _judged(self, token: str, certificate: bytes | None) -> Subject:
        if len(token) > MAX_TOKEN or not _COMPACT.fullmatch(token):
            raise _Refused("not a signed token of a bearable size")
        head, body, _ = token.split(".")
        header, unproven = _decoded(head, MAX_HEADER), _decoded(body, MAX_CLAIMS)
        issuer, keys = self._issuers.get(_text(unproven.get("iss")) or "", (None, None))
        if issuer is None or keys is None:
            raise _Refused("issuer")
        algorithm, kid = _header(header, issuer)
        claims = _verified(token, algorithm, await keys.fitting(algorithm, kid))
        self._check(claims, issuer)
        _check_binding(claims, certificate)
        name = _text(claims.get(issuer.subject))
        if name is None:
            raise _Refused(f"no {issuer.subject}")
        return Subject(issuer.issuer, name)

    def _check(self, claims: dict[str, Any], issuer: Issuer) -> None:
        """Issuer, audience and time [rfc7519 4.1]."""
        now, leeway = self._clock.now().timestamp(), float(issuer.leeway)
        audience = claims.get("aud")
        if claims.get("iss") != issuer.issuer:
            raise _Refused("issuer")
        if issuer.audience not in (audience if isinstance(audience, list) else [audience]):
            raise _Refused("audience")
        end = _moment(claims, "exp")
        if end is None:
            raise _Refused("no exp")
        begin, made = _moment(claims, "nbf"), _moment(claims, "iat")
        if end <= now - leeway:
            raise _Refused("expired")
        if max(begin or 0.0, made or 0.0) > now + leeway:
            raise _Refused("not valid yet")
        if end - (made if made is not None else now) > float(issuer.max_lifetime) + leeway:
            raise _Refused("valid for too long")


class _Keys:
    """The keys of one issuer."""

    def __init__(self, issuer: Issuer, fetch: Fetch, clock: Clock) -> None:
        self._issuer, self._fetch, self._clock = issuer, fetch, clock
        self._keys: tuple[_Key, ...] = ()
        self._fetched = self._not_before = self._no_surprise_before = -math.inf
        self._fetching = asyncio.Lock()

    async def fitting(self, algorithm: str, kid: str | None) -> list[Any]:
        """The keys a token may be signed with. Raises `Overloaded`, `_Refused`."""
        await self._look(kid)
        if self._clock.monotonic() - self._fetched > float(self._issuer.stale):
            raise Overloaded("the keys of the token issuer cannot be had")
        found = [k for k in self._keys if k.kind == KINDS[algorithm] and k.algorithm in (None, algorithm)]
        found = [k for k in found if k.kid == kid] if kid is not None else found
        if not found or (kid is None and len(found) > 1):
            raise _Refused("key")
        return [k.key for k in found]

    async def _look(self, kid: str | None) -> None:
        """Fetch when the keys are old, or do not have this one."""
        now = self._clock.monotonic()
        old = now - self._fetched > float(self._issuer.refresh)
        unknown = kid is not None and all(k.kid != kid for k in self._keys)
        surprise = not old and unknown and now >= self._no_surprise_before
        if not (old or surprise) or now < self._not_before:
            return
        usable = now - self._fetched <= float(self._issuer.stale)
        if self._fetching.locked() and usable and not surprise:
            return  # somebody is at it; what we have will do
        before = self._fetched
        async with self._fetching:
            if self._fetched == before and self._clock.monotonic() >= self._not_before:
                if surprise:
                    self._no_surprise_before = now + AFTER_SURPRISE
                await self._renew()

    async def _renew(self) -> None:
        try:
            async with asyncio.timeout(FETCH_SECONDS):
                keys = read_keys(await self._fetch(self._issuer))
        except (GatewayError, OSError, TimeoutError, ValueError) as error:
            self._not_before = self._clock.monotonic() + AFTER_FAILURE
            reason = str(error) or type(error).__name__
            log.event("issuer.unreachable", level="warning", issuer=self._issuer.issuer, reason=reason)
            return
        self._keys, self._fetched = keys, self._clock.monotonic()


def read_keys(octets: bytes) -> tuple[_Key, ...]:
    """The usable keys of a JWK Set [rfc7517 5]; what is of another kind is passed over. Raises `ValueError`."""
    if len(octets) > JWKS_BYTES:
        raise ValueError("the key set is too large")
    try:
        entries = msgspec.json.decode(octets, type=dict)["keys"]
    except (msgspec.MsgspecError, KeyError, UnicodeDecodeError, RecursionError):
        raise ValueError("not a JWK Set") from None
    if not isinstance(entries, list) or len(entries) > MAX_KEYS:
        raise ValueError("not a JWK Set, or one with too many keys")
    found = tuple(key for entry in entries if isinstance(entry, dict) and (key := _key(entry)) is not None)
    if not found:
        raise ValueError("no key in it can be used")
    return found


def _key(entry: dict[str, Any]) -> _Key | None:
    kind = (entry.get("kty"), None if entry.get("kty") == "RSA" else entry.get("crv"))
    operations = entry.get("key_ops")
    if kind not in KINDS.values() or entry.get("use") not in (None, "sig") or "d" in entry:
        return None
    if operations is not None and (not isinstance(operations, list) or "verify" not in operations):
        return None
    kid, algorithm = entry.get("kid"), entry.get("alg")
    if not isinstance(kid, str | None) or not isinstance(algorithm, str | None):
        return None
    try:
        if kind[0] == "RSA" and int.from_bytes(_unpadded(entry["n"])).bit_length() not in RSA_BITS:
            return None
        key = jwk.import_key({name: entry[name] for name in PUBLIC if name in entry})
    except (JoseError, ValueError, TypeError, KeyError, _Refused):
        return None
    return _Key(kid, kind, algorithm, key)


def _header(header: dict[str, Any], issuer: Issuer) -> tuple[str, str | None]:
    """Algorithm and kid. Raises `_Refused`."""
    algorithm, kid, kind = header.get("alg"), header.get("kid"), header.get("typ")
    allowed = issuer.algorithms + (("Ed25519",) if "EdDSA" in issuer.algorithms else ())
    if not isinstance(algorithm, str) or algorithm not in allowed:
        raise _Refused("algorithm")
    if (kid is not None and _text(kid) is None) or (kind.lower() if isinstance(kind, str) else kind) not in TYPES:
        raise _Refused("header")
    if "crit" in header or "b64" in header:
        raise _Refused("header demands more than we know")
    return algorithm, kid


def _verified(token: str, algorithm: str, keys: list[Any]) -> dict[str, Any]:
    """The claims, once one of the keys has signed them. Raises `_Refused`."""
    for key in keys[:4]:
        registry = _Registry(algorithms=[algorithm], strict_check_header=False)
        try:
            proven = jws.deserialize_compact(token, key, algorithms=[algorithm], registry=registry)
        except (JoseError, ValueError, TypeError):
            continue
        return _object(proven.payload)
    raise _Refused("signature")


def _check_binding(claims: dict[str, Any], certificate: bytes | None) -> None:
    """A token that is bound to a key is worth nothing without it [rfc8705 3.1]; other bindings we cannot check."""
    bound = claims.get("cnf")
    if bound is None:
        return
    thumbprint = bound.get("x5t#S256") if isinstance(bound, dict) and set(bound) == {"x5t#S256"} else None
    if not isinstance(thumbprint, str) or certificate is None:
        raise _Refused("bound to a certificate that is not here")
    if not hmac.compare_digest(_unpadded(thumbprint), hashlib.sha256(certificate).digest()):
        raise _Refused("bound to another certificate")


def _moment(claims: dict[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e12:
        raise _Refused(f"{name} is no time")
    return float(value)


def _text(value: Any) -> str | None:
    fits = isinstance(value, str) and 0 < len(value) <= MAX_NAME and value.isprintable() and " " not in value
    return value if fits else None


def _decoded(segment: str, most: int) -> dict[str, Any]:
    octets = _unpadded(segment)
    if len(octets) > most:
        raise _Refused("too large")
    return _object(octets)


def _object(octets: bytes) -> dict[str, Any]:
    try:
        return msgspec.json.decode(octets, type=dict[str, Any])
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise _Refused("not a JSON object") from None


def _unpadded(text: str) -> bytes:
    try:
        return urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except ValueError:
        raise _Refused("not base64url") from None
