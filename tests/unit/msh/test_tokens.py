"""Signed tokens of issuers: what is believed, and everything that is not, with the same answer."""

import asyncio
import base64
import hashlib
import hmac
import json
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, padding, rsa, utils

from gateway.config import Issuer
from gateway.errors import NotFound, Overloaded, SendFailed
from gateway.msh import tokens as module
from gateway.msh.access import Access
from gateway.msh.tokens import Tokens, read_keys
from gateway.operate import backends
from gateway.store.memory import MemoryStore

ISS, AUD = "https://issuer.example/realms/oots", "oots-gateway"
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
DER = b"a certificate in DER"


def b64(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).decode().rstrip("=")


def number(value: int, size: int | None = None) -> str:
    return b64(value.to_bytes(size or (value.bit_length() + 7) // 8, "big"))


class Signer:
    """An issuer's key, and tokens made by hand: nothing of the library under test is used."""

    def __init__(self, algorithm: str, kid: str | None = "k1", **more) -> None:
        self.algorithm, self.kid, self.more = algorithm, kid, more
        if algorithm == "RS256":
            self.key = rsa.generate_private_key(65537, more.pop("bits", 2048))
        elif algorithm == "ES256":
            self.key = ec.generate_private_key(more.pop("curve", ec.SECP256R1()))
        else:
            self.key = ed25519.Ed25519PrivateKey.generate()

    def jwk(self) -> dict:
        public = self.key.public_key()
        if self.algorithm == "RS256":
            numbers = public.public_numbers()
            found = {"kty": "RSA", "n": number(numbers.n), "e": number(numbers.e)}
        elif self.algorithm == "ES256":
            numbers = public.public_numbers()
            found = {"kty": "EC", "crv": "P-256", "x": number(numbers.x, 32), "y": number(numbers.y, 32)}
        else:
            found = {"kty": "OKP", "crv": "Ed25519", "x": b64(public.public_bytes_raw())}
        return found | ({"kid": self.kid} if self.kid else {}) | self.more

    def sign(self, signed: bytes) -> bytes:
        if self.algorithm == "RS256":
            return self.key.sign(signed, padding.PKCS1v15(), hashes.SHA256())
        if self.algorithm == "ES256":
            r, s = utils.decode_dss_signature(self.key.sign(signed, ec.ECDSA(hashes.SHA256())))
            return r.to_bytes(32, "big") + s.to_bytes(32, "big")
        return self.key.sign(signed)

    def token(self, header=None, claims=None, **changes) -> str:
        head = {"alg": self.algorithm, "typ": "at+jwt"} | ({"kid": self.kid} if self.kid else {}) | (header or {})
        body = standard() | (claims or {}) | changes
        clean = [{k: v for k, v in one.items() if v is not ...} for one in (head, body)]
        signed = ".".join(b64(json.dumps(one).encode()) for one in clean)
        return f"{signed}.{b64(self.sign(signed.encode()))}"


def standard() -> dict:
    at = int(NOW.timestamp())
    return {"iss": ISS, "aud": AUD, "sub": "evidence-service", "azp": "client-7", "iat": at, "exp": at + 300}


class Clock:
    def __init__(self) -> None:
        self.passed = 0.0

    def now(self):
        return NOW + timedelta(seconds=self.passed)

    def monotonic(self):
        return 1000.0 + self.passed


class Published:
    """What the issuer serves; counts who asks."""

    def __init__(self, *signers: Signer) -> None:
        self.keys, self.asked, self.down, self.octets = [s.jwk() for s in signers], 0, False, None

    async def __call__(self, issuer: Issuer) -> bytes:
        self.asked += 1
        await asyncio.sleep(0)
        if self.down:
            raise SendFailed("no answer", stage="connect")
        return self.octets if self.octets is not None else json.dumps({"keys": self.keys}).encode()


SIGNERS = {name: Signer(name) for name in ("RS256", "ES256", "EdDSA")}


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture(params=SIGNERS)
def signer(request):
    return SIGNERS[request.param]


@pytest.fixture
def rs():
    return SIGNERS["RS256"]


def judge(clock, *signers, published=None, **options):
    issuer = Issuer(issuer=ISS, audience=AUD, jwks_url="https://issuer.example/jwks", **options)
    return Tokens((issuer,), published or Published(*signers), clock)


async def refuses(tokens, token, certificate=None):
    with pytest.raises(NotFound) as refused:
        await tokens.subject(token, certificate)
    assert str(refused.value) == "no such client"  # always the same


async def test_a_good_one(clock, signer):
    assert await judge(clock, signer).subject(signer.token(), None) == (ISS, "evidence-service")


async def test_who_it_speaks_for(clock, rs):
    assert (await judge(clock, rs, subject="azp").subject(rs.token(), None)).name == "client-7"
    for value in (..., "", "a b", "x" * 501, 7, None, ["evidence-service"], "a\nb"):
        await refuses(judge(clock, rs), rs.token(sub=value))


async def test_the_client_behind_it(clock, rs):
    store = MemoryStore(clock)
    access = Access(store, clock, judge(clock, rs))
    client, _ = await backends.create(store, "Evidence service", "rest")
    with pytest.raises(NotFound):
        await access.token(rs.token())
    credential = await backends.add_subject(store, client.id, ISS, "evidence-service")
    assert (await access.token(rs.token())).id == client.id
    with pytest.raises(NotFound):
        await access.token(rs.token(sub="somebody-else"))
    await store.revoke_credential(credential.id)
    with pytest.raises(NotFound):
        await access.token(rs.token())


async def test_without_issuers_nothing_signed_is_believed(clock, rs):
    with pytest.raises(NotFound):
        await Access(MemoryStore(clock), clock).token(rs.token())


@pytest.mark.parametrize("changes", [
    {"iss": "https://issuer.example/realms/other"}, {"iss": ISS + "/"}, {"iss": ...}, {"iss": [ISS]}, {"iss": 1},
    {"aud": "another"}, {"aud": ["another"]}, {"aud": ...}, {"aud": None}, {"aud": AUD + "x"}, {"aud": {AUD: 1}},
    {"exp": ...}, {"exp": None}, {"exp": "never"}, {"exp": True}, {"exp": -1}, {"exp": 1e300},
    {"exp": int(NOW.timestamp()) - 31}, {"exp": int(NOW.timestamp()) + 90_000},
    {"iat": int(NOW.timestamp()) + 31}, {"nbf": int(NOW.timestamp()) + 31}, {"nbf": "soon"}, {"iat": []},
    {"iat": 1, "exp": int(NOW.timestamp()) + 300}, {"iat": ..., "exp": int(NOW.timestamp()) + 7300},
])  # fmt: skip
async def test_claims_that_do_not_fit(clock, rs, changes):
    await refuses(judge(clock, rs), rs.token(**changes))


@pytest.mark.parametrize("changes", [
    {"aud": ["another", AUD]}, {"exp": int(NOW.timestamp()) - 29}, {"nbf": int(NOW.timestamp()) + 29}, {"iat": ...},
    {"exp": NOW.timestamp() + 10.5}, {"scope": "x", "deep": {"a": [1]}},
])  # fmt: skip
async def test_claims_that_fit(clock, rs, changes):
    assert await judge(clock, rs).subject(rs.token(**changes), None)


def unsigned(algorithm, signature=""):
    head, body = ({"alg": algorithm, "kid": "k1"}, standard())
    return ".".join(b64(json.dumps(one).encode()) for one in (head, body)) + "." + signature


@pytest.mark.parametrize("algorithm", ["none", "None", "NONE", "nOnE", "", "HS256", "HS512", "PS256", "RS1", "ES384", "dir", 7, None])
async def test_algorithms_nobody_allowed(clock, rs, algorithm):
    for token in (unsigned(algorithm), unsigned(algorithm, "AAAA"), rs.token(header={"alg": algorithm})):
        await refuses(judge(clock, rs), token)


async def test_only_the_algorithms_of_the_issuer(clock):
    for allowed in SIGNERS:
        for name, signer in SIGNERS.items():
            tokens = judge(clock, *SIGNERS.values(), algorithms=(allowed,))
            if name != allowed:
                await refuses(tokens, signer.token())
    ed = SIGNERS["EdDSA"]
    assert await judge(clock, ed).subject(ed.token(header={"alg": "Ed25519"}), None)


@pytest.mark.parametrize("form", ["PEM", "DER", "jwk", "modulus"])
async def test_a_public_key_is_no_secret(clock, rs, form):
    """Key confusion: HMAC with what everybody may read."""
    public = rs.key.public_key()
    secret = {
        "PEM": public.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
        "DER": public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo),
        "jwk": json.dumps(rs.jwk()).encode(), "modulus": rs.jwk()["n"].encode(),
    }[form]  # fmt: skip
    for algorithm in ("HS256", "RS256"):
        signed = ".".join(b64(json.dumps(one).encode()) for one in ({"alg": algorithm, "kid": "k1"}, standard()))
        await refuses(judge(clock, rs), f"{signed}.{b64(hmac.digest(secret, signed.encode(), 'sha256'))}")


async def test_a_key_of_another_kind(clock):
    """A kid that leads to a key which does not go with the algorithm."""
    rs, es = Signer("RS256", "same"), Signer("ES256", "same")
    await refuses(judge(clock, es), rs.token())
    await refuses(judge(clock, rs), es.token())
    tokens = judge(clock, rs, es)
    assert await tokens.subject(rs.token(), None) and await tokens.subject(es.token(), None)
    await refuses(tokens, rs.token(header={"alg": "ES256"}))


@pytest.mark.parametrize("kid", ["k2", "../../k1", "k1' OR '1'='1", "file:///etc/passwd", "x" * 501, "", 1, ["k1"], {"a": 1}, "k1\0"])
async def test_kid_games(clock, rs, kid):
    await refuses(judge(clock, rs), rs.token(header={"kid": kid}))


async def test_keys_in_the_header_are_not_looked_at(clock, rs):
    stranger = Signer("RS256", "k1")
    for header in ({"jwk": stranger.jwk()}, {"jku": "https://evil.example/jwks"}, {"x5u": "https://evil.example"},
                   {"x5c": ["AAAA"]}):  # fmt: skip
        published = Published(rs)
        await refuses(judge(clock, published=published), stranger.token(header=header))
        assert published.asked <= 1
    assert await judge(clock, rs).subject(rs.token(header={"jku": "https://evil.example/jwks"}), None)


@pytest.mark.parametrize("header", [{"crit": ["exp"]}, {"crit": []}, {"b64": False, "crit": ["b64"]}, {"b64": False},
                                    {"typ": "logout+jwt"}, {"typ": 7}])  # fmt: skip
async def test_headers_that_demand_something(clock, rs, header):
    await refuses(judge(clock, rs), rs.token(header=header))


@pytest.mark.parametrize("kind", ["JWT", "jwt", "at+jwt", "application/at+jwt", ...])
async def test_usual_types(clock, rs, kind):
    assert await judge(clock, rs).subject(rs.token(header={"typ": kind}), None)


async def test_without_kid(clock):
    one, two = Signer("RS256", None), Signer("RS256", "k2")
    assert await judge(clock, one).subject(one.token(), None)
    await refuses(judge(clock, one, two), one.token())  # nobody guesses


async def test_changed_tokens(clock, signer):
    tokens, good = judge(clock, signer), signer.token()
    head, body, signature = good.split(".")
    other = b64(json.dumps(standard() | {"sub": "admin"}).encode())
    for bad in (
        f"{head}.{other}.{signature}", f"{head}.{body}.", f"{head}.{body}", f"{head}.{body}.{signature}.", f"{good}.x.y",
        f".{body}.{signature}", "..", "a.b.c", f"{head}.{body}.{b64(bytes(64))}", f"{head}.{body}.{b64(bytes(256))}",
        f"{head}.{body}.{signature[:-4]}", f"{head}=.{body}.{signature}", f"{head}.{body}.{signature} ",
        f"{b64(b'[]')}.{body}.{signature}", f"{b64(b'{')}.{body}.{signature}", f"{head}.{b64(b'null')}.{signature}",
        f"{b64(b'[' * 900)}.{body}.{signature}", "ē.b.c", Signer(signer.algorithm).token(),
    ):  # fmt: skip
        await refuses(tokens, bad)
    assert await tokens.subject(good, None)


async def test_huge_tokens(clock, rs):
    published = Published(rs)
    tokens = judge(clock, published=published)
    for token in (rs.token(pad="x" * 8000), rs.token(header={"pad": "x" * 2000}), "a" * 100_000, "." * 100_000):
        await refuses(tokens, token)
    assert published.asked == 0


# -- certificate-bound tokens ------------------------------------------------------------


def bound(der=DER, **more):
    return {"cnf": {"x5t#S256": b64(hashlib.sha256(der).digest())} | more}


async def test_bound_to_a_certificate(clock, rs):
    """RFC 8705."""
    tokens = judge(clock, rs)
    assert await tokens.subject(rs.token(**bound()), DER)
    await refuses(tokens, rs.token(**bound()))
    await refuses(tokens, rs.token(**bound()), b"another")
    assert await tokens.subject(rs.token(), DER)  # not bound, and a certificate all the same
    for cnf in ({}, [], "x", {"jkt": "x"}, {"x5t#S256": 1}, {"x5t#S256": ""}, {"x5t#S256": "!"}, bound(jkt="y")["cnf"]):
        await refuses(tokens, rs.token(cnf=cnf), DER)


# -- the keys of the issuer --------------------------------------------------------------


async def test_keys_are_fetched_once_and_again_when_old(clock, rs):
    published = Published(rs)
    tokens = judge(clock, published=published, refresh=300, stale=3600, max_lifetime=86_400)
    token = rs.token(exp=int(NOW.timestamp()) + 80_000)
    await asyncio.gather(*(tokens.subject(token, None) for _ in range(20)))
    assert published.asked == 1
    clock.passed = 299
    await tokens.subject(token, None)
    assert published.asked == 1
    clock.passed = 301
    await asyncio.gather(*(tokens.subject(token, None) for _ in range(20)))
    assert published.asked == 2


async def test_rotation(clock, rs):
    """A new key is found when it is first used; one that is withdrawn goes with the next refresh."""
    published, new = Published(rs), Signer("ES256", "k2")
    tokens = judge(clock, published=published, max_lifetime=86_400)
    long = {"exp": int(NOW.timestamp()) + 80_000}
    await tokens.subject(rs.token(**long), None)
    published.keys.append(new.jwk())
    assert await tokens.subject(new.token(**long), None)
    assert published.asked == 2
    del published.keys[0]
    assert await tokens.subject(rs.token(**long), None)
    clock.passed = 301
    await refuses(tokens, rs.token(**long))
    assert await tokens.subject(new.token(**long), None)


async def test_unknown_kids_do_not_make_us_a_flood(clock, rs):
    published = Published(rs)
    tokens = judge(clock, published=published)
    for n in range(50):
        await refuses(tokens, rs.token(header={"kid": f"k{n}x"}))
    assert published.asked <= 2
    clock.passed = 31
    await refuses(tokens, rs.token(header={"kid": "again"}))
    assert published.asked <= 3


async def test_while_the_issuer_is_down(clock, rs):
    published = Published(rs)
    tokens = judge(clock, published=published, refresh=300, stale=3600, max_lifetime=86_400)
    token = rs.token(exp=int(NOW.timestamp()) + 80_000)
    await tokens.subject(token, None)
    published.down = True
    clock.passed = 3500
    for _ in range(10):
        assert await tokens.subject(token, None)
    assert published.asked == 2  # not one wait for each request
    clock.passed = 3601
    with pytest.raises(Overloaded):
        await tokens.subject(token, None)
    published.down = False
    clock.passed += module.AFTER_FAILURE
    assert await tokens.subject(token, None)


async def test_an_issuer_that_was_never_there(clock, rs):
    published = Published(rs)
    published.down = True
    with pytest.raises(Overloaded):
        await judge(clock, published=published).subject(rs.token(), None)


@pytest.mark.parametrize("octets", [b"", b"[]", b"{}", b'{"keys": {}}', b'{"keys": []}', b'{"keys": [1, null, "x"]}',
                                    b'{"keys": [' + b"{}," * 200 + b"{}]}", b"[" * 100_000, b" " * (257 << 10), b"\xff",
                                    b"<html>"])  # fmt: skip
async def test_nonsense_instead_of_keys_leaves_the_old_ones(clock, rs, octets):
    with pytest.raises(ValueError):
        read_keys(octets)
    published = Published(rs)
    tokens = judge(clock, published=published)
    await tokens.subject(rs.token(), None)
    published.octets = octets
    clock.passed = 301
    assert await tokens.subject(rs.token(exp=int(NOW.timestamp()) + 600), None)


def test_keys_that_are_passed_over(rs):
    good = rs.jwk()
    ed = ed448.Ed448PrivateKey.generate().public_key().public_bytes_raw()
    odd = [
        {**good, "kty": "oct", "k": "c2VjcmV0"}, {"kty": "oct", "k": "c2VjcmV0", "kid": "k1"}, {**good, "use": "enc"},
        {**good, "key_ops": ["sign"]}, {**good, "key_ops": "verify"}, {**good, "n": "AQAB"}, {**good, "n": 5}, {**good, "n": "!"},
        {**good, "d": "AQAB"}, {**good, "kid": 1}, {**good, "alg": 1}, {"kty": "RSA"}, {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA"},
        {"kty": "OKP", "crv": "Ed448", "x": b64(ed)}, {**Signer("ES256").jwk(), "crv": "P-384"}, {"kty": ["RSA"]},
        {"kty": {}}, {**good, "n": number(1 << 16384)},
    ]  # fmt: skip
    with pytest.raises(ValueError):
        read_keys(json.dumps({"keys": odd}).encode())
    [key] = read_keys(json.dumps({"keys": [*odd, good]}).encode())
    assert key.kid == "k1" and key.kind == ("RSA", None)


async def test_small_keys(clock):
    small = Signer("RS256", bits=1024)
    with pytest.raises(Overloaded):
        await judge(clock, small).subject(small.token(), None)


async def test_a_file_of_keys_and_its_rotation(tmp_path, clock, rs):
    from gateway.msh.tokens import fetcher

    path = tmp_path / "jwks.json"
    path.write_text(json.dumps({"keys": [rs.jwk()]}))
    issuer = Issuer(issuer=ISS, audience=AUD, jwks_file=path)
    tokens = Tokens((issuer,), fetcher(None), clock)
    assert await tokens.subject(rs.token(), None)
    new = Signer("EdDSA", "k2")
    path.write_text(json.dumps({"keys": [new.jwk()]}))
    assert await tokens.subject(new.token(), None)
    path.unlink()
    clock.passed = 301
    assert await tokens.subject(new.token(exp=int(NOW.timestamp()) + 600), None)
