"""E03: how long it takes to refuse a content key does not tell why it was refused [threats E03].

Manger's attack on RSA-OAEP needs one bit: whether the first octet of the decrypted block was
zero. Only the holder of the private key can make blocks of each kind at will, so the test is
one, and compares the kinds two by two over the whole of `unwrap_content_key`.
"""

import gc
import hashlib
import math
import os
import random
import time
from itertools import combinations
from types import SimpleNamespace

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa

from gateway.as4 import ns
from gateway.as4.wss.decrypt import EncryptedKey, unwrap_content_key
from gateway.as4.wss.tokens import KeyReference
from gateway.errors import FailedDecryption
from gateway.keys.keyring import SoftwareDecryptionKey
from tests.peer import Authority, Keys

SIZE, HASH = 256, hashlib.sha256
MUTATED = 10_000


def masked(data: bytes, seed: bytes) -> bytes:
    """Seed and data block as OAEP masks them [rfc8017 7.1.1]."""
    data = xor(data, mgf1(seed, len(data)))
    return xor(seed, mgf1(data, len(seed))) + data


def mgf1(seed: bytes, size: int) -> bytes:
    return b"".join(HASH(seed + n.to_bytes(4)).digest() for n in range(-(-size // 32)))[:size]


def xor(a: bytes, b: bytes) -> bytes:
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


#: Blocks before the public operation; each is refused for another reason.
KINDS = {
    "first octet not zero": lambda: b"\x01" + os.urandom(SIZE - 1),
    "another label": lambda: b"\0" + os.urandom(SIZE - 1),
    "no separator": lambda: b"\0" + masked(HASH(b"").digest() + bytes(SIZE - 65), os.urandom(32)),
    "wrong padding": lambda: b"\0" + masked(HASH(b"").digest() + b"\2" + os.urandom(SIZE - 66), os.urandom(32)),
}


@pytest.fixture(scope="module")
def key() -> tuple[SoftwareDecryptionKey, rsa.RSAPublicNumbers]:
    keys = Keys.make("AP_LV_01", "rsa", Authority())
    private = keys.decryption_private
    return SoftwareDecryptionKey(private, keys.encryption), private.public_key().public_numbers()


def encrypted(block: bytes, public: rsa.RSAPublicNumbers, certificate: bytes) -> SimpleNamespace:
    wrapped = pow(int.from_bytes(block), public.e, public.n).to_bytes(SIZE)
    reference = KeyReference(certificate=certificate)
    return SimpleNamespace(
        encrypted_key=EncryptedKey(ns.RSA_OAEP, wrapped, reference, ns.SHA256, ns.MGF1_SHA256), encrypted_parts={}
    )


def refused(opened: SimpleNamespace, key: SoftwareDecryptionKey) -> tuple[int, str]:
    """How many nanoseconds the refusal took, and what a peer would be told."""
    began = time.perf_counter_ns()
    try:
        unwrap_content_key(opened, [key])
    except FailedDecryption as error:
        return time.perf_counter_ns() - began, f"{error.code} {error.short_description} {error.wire}"
    raise AssertionError("a forged content key was taken")


def same_distribution(a: list[int], b: list[int]) -> float:
    """p of the two-sided Mann-Whitney test, by the normal approximation."""
    ranked = sorted([(value, 0) for value in a] + [(value, 1) for value in b])
    ranks = sum(rank for rank, (_, which) in enumerate(ranked, 1) if which == 0)
    n, m = len(a), len(b)
    z = (ranks - n * (n + m + 1) / 2) / math.sqrt(n * m * (n + m + 1) / 12)
    return math.erfc(abs(z) / math.sqrt(2))


def test_every_forged_content_key_gets_the_same_words(key):
    ours, public = key
    texts = {refused(encrypted(make(), public, ours.certificate), ours)[1] for make in KINDS.values()}
    assert len(texts) == 1


@pytest.mark.slow
def test_the_time_of_a_refusal_tells_nothing(key):
    """A difference that is real shows in every round; noise of the machine does not."""
    ours, public = key
    suspected = set(combinations(KINDS, 2))
    for round_ in range(3):
        blocks = [name for name in KINDS for _ in range(MUTATED // len(KINDS))]
        random.Random(round_).shuffle(blocks)
        forged = [(name, encrypted(KINDS[name](), public, ours.certificate)) for name in blocks]
        times: dict[str, list[int]] = {name: [] for name in KINDS}
        gc.disable()
        try:
            for name, opened in forged:
                times[name].append(refused(opened, ours)[0])
        finally:
            gc.enable()
        suspected = {pair for pair in suspected if same_distribution(times[pair[0]], times[pair[1]]) < 0.01}
        if not suspected:
            return
    pytest.fail(f"told apart in every round: {sorted(suspected)}")
