"""Whether a certificate has a path to an anchor: RFC 5280, 6.1, for access points [as4 3.11 (6), 4.9].

A path is leaf, intermediates, anchor. The intermediates come from two places: carried in the
message (believed in nothing) and configured. The search goes from the leaf upwards over equal
names (octet by octet), depth first, and takes the first path in which everything is right. It is
bounded in every direction: certificates, depth, and signatures that are verified, so that a bag of
certificates that name each other in circles costs a few milliseconds [threats F06].

The library's own verifier is not used. It is for the Web PKI: an Ed25519 or brainpool key of a CA, a
CA without key usage, policy constraints and name constraints on directory names (which are all the
names an access point has) are refused whatever they say; certificate policies and revocation it does
not know, and of the leaf it asks little [threats 0.9]. Where both can judge they must agree; the tests
ask both.

The leaf must be fit for its use (`check_certificate`) and no CA, the anchors valid like everything
else, whatever RFC 5280 leaves out for them. Revocation is asked last, with the finished path.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, ExtensionOID

from gateway.as4.wss.algorithms import UNREADABLE, check_public_key
from gateway.config import Trust
from gateway.errors import CertificateRefused
from gateway.keys.constraints import check_names, check_policies
from gateway.keys.trust import MAX_CERTIFICATE, STRICT, Use, check_certificate, check_period, check_signature

#: Certificates from the leaf to the anchor, both included. The eDelivery PKI has three; a message may carry five.
MAX_LENGTH = 6
#: Certificates that are looked at beside the leaf.
MAX_CANDIDATES = 64
#: Signatures verified in one search. An honest one needs two or three.
MAX_VERIFIED = 24

#: Asked about a path that is right otherwise, leaf first, as DER; raises `CertificateRefused`("revoked" or
#: "revocation-unknown").
Revocation = Callable[[Sequence[bytes], datetime], None]

#: Critical extensions of a CA that are judged here.
_UNDERSTOOD = frozenset(
    {
        ExtensionOID.KEY_USAGE, ExtensionOID.EXTENDED_KEY_USAGE, ExtensionOID.BASIC_CONSTRAINTS,
        ExtensionOID.SUBJECT_ALTERNATIVE_NAME, ExtensionOID.CERTIFICATE_POLICIES, ExtensionOID.NAME_CONSTRAINTS,
        ExtensionOID.POLICY_CONSTRAINTS, ExtensionOID.INHIBIT_ANY_POLICY,
    }
)  # fmt: skip


def not_checked(path: Sequence[bytes], now: datetime) -> None:
    """No revocation is checked."""


def check_path(
    leaf: bytes,
    *,
    use: Use,
    now: datetime,
    anchors: Sequence[bytes],
    intermediates: Sequence[bytes] = (),
    carried: Sequence[bytes] = (),
    policies: Iterable[str] = (),
    allow: Trust = STRICT,
    revocation: Revocation = not_checked,
) -> tuple[bytes, ...]:
    """The path from `leaf` to one of `anchors`, all DER, leaf first.

    `carried` came with the leaf, `intermediates` are configured; `policies` are OIDs of which
    the path must be valid for one. `allow` loosens what it loosens for pinned certificates,
    but a CA is never a leaf. Raises `CertificateRefused` with a reason of `check_certificate` for
    the leaf, or of the path: no-path, not-yet-valid, expired, weak-signature, weak-key, not-a-ca,
    path-too-long, key-usage, extended-key-usage, unknown-critical-extension, name-constraints, policy,
    and what `revocation` says.
    """
    check_certificate(leaf, use=use, now=now, allow=allow, by_path=True)
    try:
        end = x509.load_der_x509_certificate(leaf)
        roots = [_anchor(der) for der in anchors]
        known = [_anchor(der) for der in intermediates]
        strangers = [x509.load_der_x509_certificate(der) for der in carried if der != leaf]
        if any(len(der) > MAX_CERTIFICATE for der in carried) or len(known) + len(strangers) > MAX_CANDIDATES:
            raise CertificateRefused("no-path", "too many certificates, or too large")
        search = _Search(roots, known + strangers, now, allow, frozenset(policies))
        path = search.run(end)
    except UNREADABLE as error:
        raise CertificateRefused("malformed", str(error)) from None
    found = tuple(certificate.public_bytes(Encoding.DER) for certificate in path)
    revocation(found, now)
    return found


class _Search:
    """One search for one leaf."""

    def __init__(
        self, anchors: Sequence[x509.Certificate], others: Sequence[x509.Certificate], now: datetime, allow: Trust,
        policies: frozenset[str],
    ) -> None:  # fmt: skip
        self._anchors, self._others = anchors, others
        self._now, self._allow, self._policies = now, allow, policies
        self._left = MAX_VERIFIED
        self._refused: CertificateRefused | None = None

    def run(self, leaf: x509.Certificate) -> tuple[x509.Certificate, ...]:
        for path in self._paths((leaf,)):
            try:
                check_names(path)
                check_policies(path, self._policies)
            except CertificateRefused as refused:
                self._refused = refused
                continue
            return path
        # What stopped the search last tells more than that nothing was found.
        raise self._refused or CertificateRefused("no-path", "no path to a trust anchor of the agreement")

    def _paths(self, path: tuple[x509.Certificate, ...]) -> Iterator[tuple[x509.Certificate, ...]]:
        """Every path that goes on from this one and ends at an anchor, anchors tried first."""
        for issuer in self._anchors:
            if self._issued(path, issuer):
                yield (*path, issuer)
        if len(path) >= MAX_LENGTH - 1:
            return
        for issuer in self._others:
            if issuer not in path and self._issued(path, issuer):
                yield from self._paths((*path, issuer))

    def _issued(self, path: tuple[x509.Certificate, ...], issuer: x509.Certificate) -> bool:
        """Whether `issuer` may have issued, and did issue, the last certificate of the path."""
        subject = path[-1]
        if subject.issuer.public_bytes() != issuer.subject.public_bytes():
            return False
        try:
            self._check_ca(issuer, path)
            if not self._left:
                raise CertificateRefused("no-path", "too many signatures to verify")
            self._left -= 1
            check_signature(subject, self._allow)
            subject.verify_directly_issued_by(issuer)
        except CertificateRefused as refused:
            self._refused = refused
            return False
        except (InvalidSignature, *UNREADABLE):
            # Another CA of that name, or a key of a kind that signs nothing.
            return False
        return True

    def _check_ca(self, ca: x509.Certificate, path: tuple[x509.Certificate, ...]) -> None:
        """That a certificate may issue the path below it. Raises `CertificateRefused`, `ValueError`."""
        check_period(ca, self._now)
        constraints = None
        for extension in ca.extensions:
            match extension.value:
                case x509.BasicConstraints() as constraints:
                    pass
                case x509.KeyUsage(key_cert_sign=False):
                    raise CertificateRefused("key-usage", "the key usage of a CA does not allow to issue")
                case x509.ExtendedKeyUsage() as purposes if set(purposes) == {ExtendedKeyUsageOID.SERVER_AUTH}:
                    raise CertificateRefused("extended-key-usage", "a CA for TLS servers only")
            if extension.critical and extension.oid not in _UNDERSTOOD:
                raise CertificateRefused("unknown-critical-extension", extension.oid.dotted_string)
        if constraints is None or not constraints.ca:
            raise CertificateRefused("not-a-ca", "an issuer in the path is not a CA")
        below = sum(not _self_issued(certificate) for certificate in path[1:])
        if constraints.path_length is not None and below > constraints.path_length:
            raise CertificateRefused("path-too-long", f"a CA allows {constraints.path_length} below it")
        try:
            check_public_key(ca.public_key())
        except ValueError as error:
            raise CertificateRefused("weak-key", str(error)) from None


def _self_issued(certificate: x509.Certificate) -> bool:
    return certificate.subject.public_bytes() == certificate.issuer.public_bytes()


@lru_cache(256)
def _anchor(der: bytes) -> x509.Certificate:
    """A configured certificate, parsed once. Never one from a message."""
    return x509.load_der_x509_certificate(der)
