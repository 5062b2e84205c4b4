"""Who is asking: the credentials of API clients, judged.

A token is 256 random bits, so a plain hash finds it. A password is chosen by people: bcrypt,
in a thread, few at a time; what was right is remembered for a minute, for a SOAP client sends
its password with every request. An unknown login costs what a known one does, so that
nobody learns which exist by the clock [threats K04].
"""

import asyncio
import hashlib
import hmac
import os
from collections import OrderedDict

import bcrypt

from gateway.clock import Clock
from gateway.errors import NotFound, Overloaded
from gateway.keys.trust import validity
from gateway.msh.tokens import Tokens, is_signed, no_fetch
from gateway.plugin import Caller
from gateway.store.api import Client, Store

#: bcrypt reads no more, and refuses what is longer.
PASSWORD_BYTES = 72
LOGIN_BYTES = 255
#: 2^ROUNDS iterations: some 100 ms, which is what a guess costs.
ROUNDS = 11
#: Passwords judged at once in one process; each takes a core.
JUDGES = 2
#: Who waits for a judge; one more is sent away.
WAITING = 32
#: Seconds for which a right password is right without being judged again; a revoked one is not looked up
#: here, because the store is asked first.
REMEMBERED = 60.0
MAX_REMEMBERED = 1000

#: What the password of an unknown login is judged against: as dear as any other, and of no client.
_NOBODY = f"$2b${ROUNDS:02}$" + "." * 53


def token_key(token: str) -> str:
    """What a token is found by."""
    return hashlib.sha256(token.encode()).hexdigest()


def certificate_key(der: bytes) -> str:
    """What a certificate is found by."""
    return hashlib.sha256(der).hexdigest()


def password_verifier(password: str) -> str:
    """What is kept of a password. Raises `ValueError` for one that bcrypt cannot take whole."""
    octets = password.encode()
    if not 8 <= len(octets) <= PASSWORD_BYTES or b"\0" in octets:
        raise ValueError(f"a password has 8 to {PASSWORD_BYTES} bytes, and no NUL")
    return bcrypt.hashpw(octets, bcrypt.gensalt(ROUNDS)).decode()


class Access:
    """Judges credentials against the store."""

    def __init__(self, store: Store, clock: Clock, tokens: Tokens | None = None) -> None:
        self._store, self._clock = store, clock
        self._tokens = tokens or Tokens((), no_fetch, clock)
        self._judges = asyncio.Semaphore(JUDGES)
        self._waiting = 0
        self._secret = os.urandom(32)
        self._right: OrderedDict[bytes, float] = OrderedDict()

    async def token(self, token: str, certificate: bytes | None = None) -> Caller:
        """Of ours, or signed by an issuer and perhaps bound to the `certificate` it came with. Raises `NotFound`,
        `Overloaded`."""
        if is_signed(token):
            return await self.subject(*await self._tokens.subject(token, certificate))
        found = await self._store.client_by("token", token_key(token))
        return _caller(found[0] if found else None)

    async def certificate(self, der: bytes) -> Caller:
        """Raises `NotFound`. A certificate is a credential for as long as it is valid."""
        found = await self._store.client_by("certificate", certificate_key(der))
        if found is not None:
            start, end = validity(der)  # readable: it was read when it was registered
            if not start <= self._clock.now() <= end:
                found = None
        return _caller(found[0] if found else None)

    async def subject(self, issuer: str, subject: str) -> Caller:
        """The client of a signed token whose signature and time were checked. Raises `NotFound`."""
        found = await self._store.client_by("subject", f"{issuer} {subject}")
        return _caller(found[0] if found else None)

    async def password(self, login: str, password: str) -> Caller:
        """Raises `NotFound`, `Overloaded`."""
        octets = password.encode(errors="surrogatepass")
        if len(octets) > PASSWORD_BYTES or b"\0" in octets or len(login.encode(errors="surrogatepass")) > LOGIN_BYTES:
            raise NotFound("no such client")
        found = await self._store.client_by("password", login)
        client, verifier = (found[0], found[1].verifier) if found else (None, None)
        if not await self._matches(octets, verifier or _NOBODY):
            client = None
        return _caller(client)

    async def _matches(self, password: bytes, verifier: str) -> bool:
        known = hmac.digest(self._secret, verifier.encode() + b"\0" + password, "sha256")
        if self._right.get(known, 0.0) > self._clock.monotonic():
            return True
        if self._waiting >= WAITING:
            raise Overloaded("too many passwords to judge")
        self._waiting += 1
        try:
            async with self._judges:
                right = await asyncio.to_thread(_check, password, verifier)
        finally:
            self._waiting -= 1
        if right:
            self._right[known] = self._clock.monotonic() + REMEMBERED
            while len(self._right) > MAX_REMEMBERED:
                self._right.popitem(last=False)
        return right


def _check(password: bytes, verifier: str) -> bool:
    try:
        return bcrypt.checkpw(password, verifier.encode())
    except ValueError:  # an imported hash of a kind that is no bcrypt
        return False


def _caller(client: Client | None) -> Caller:
    if client is None:
        raise NotFound("no such client")
    return Caller(client.id, client.name, client.backend, client.scope)
