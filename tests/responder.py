"""A CA's OCSP responder and CRL server on loopback: what it answers, a test decides."""

import asyncio
import contextlib
import datetime
from dataclasses import dataclass, field

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp
from cryptography.x509.oid import AuthorityInformationAccessOID, ExtendedKeyUsageOID

from tests.pki import SIGN, Ca, key
from tests.serving import serving

UTC = datetime.UTC
HOUR = datetime.timedelta(hours=1)


def now():
    return datetime.datetime.now(UTC).replace(microsecond=0)


def access(*urls, method=AuthorityInformationAccessOID.OCSP):
    """The extension that names OCSP responders."""
    found = [x509.AccessDescription(method, x509.UniformResourceIdentifier(url)) for url in urls]
    return x509.AuthorityInformationAccess(found), False


def points(*urls, **more):
    """The extension that names CRLs."""
    made = [
        x509.DistributionPoint(
            full_name=[x509.UniformResourceIdentifier(url)], relative_name=None,
            reasons=more.get("reasons"), crl_issuer=more.get("crl_issuer"),
        )
        for url in urls
    ]
    return x509.CRLDistributionPoints(made), False


def delegated(ca: Ca, private=None, *, purpose=ExtendedKeyUsageOID.OCSP_SIGNING, **more):
    """(certificate, key) of a responder that the CA has charged with answering."""
    private = private or key("ec", 301)
    more.setdefault("extensions", [(x509.ExtendedKeyUsage([purpose]), False)] if purpose else [])
    more.setdefault("key_usage", SIGN)
    return ca.leaf("Responder", private.public_key(), **more), private


def ocsp_answer(ca: Ca, certificate: bytes, *, status="good", this=None, until=HOUR, signer=None, request=None,
                nonce="echo", serial=None, reason=None, digest="default", issuer=None) -> bytes:  # fmt: skip
    """An OCSP response. `signer` is (certificate, key); without one the CA signs by itself."""
    this = this or now() - datetime.timedelta(minutes=1)
    cert, private = signer or (ca.certificate, ca.key)
    leaf = x509.load_der_x509_certificate(certificate)
    if serial is not None:
        leaf = x509.load_der_x509_certificate(ca.leaf("Another", serial=serial))
    revoked = status == "revoked"
    responder = x509.load_der_x509_certificate(cert)
    builder = ocsp.OCSPResponseBuilder().add_response(
        cert=leaf, issuer=x509.load_der_x509_certificate((issuer or ca).certificate), algorithm=hashes.SHA1(),
        cert_status=ocsp.OCSPCertStatus[status.upper()], this_update=this,
        next_update=None if until is None else this + until if isinstance(until, datetime.timedelta) else until,
        revocation_time=now() - HOUR if revoked else None,
        revocation_reason=(reason or x509.ReasonFlags.key_compromise) if revoked else None,
    ).responder_id(ocsp.OCSPResponderEncoding.HASH, responder)
    if signer is not None:
        builder = builder.certificates([responder])
    if request is not None and nonce == "echo":
        with contextlib.suppress(x509.ExtensionNotFound):
            builder = builder.add_extension(request.extensions.get_extension_for_class(x509.OCSPNonce).value, False)
    elif isinstance(nonce, bytes):
        builder = builder.add_extension(x509.OCSPNonce(nonce), False)
    digest = hashes.SHA256() if digest == "default" else digest
    return builder.sign(private, digest).public_bytes(Encoding.DER)


def crl(ca: Ca, *revoked: int, this=None, until=datetime.timedelta(days=1), signer=None, extensions=(),
        reason=x509.ReasonFlags.key_compromise, digest=None) -> bytes:  # fmt: skip
    """A CRL with these serial numbers. `signer`: another key than the CA's."""
    this = this or now() - datetime.timedelta(minutes=1)
    entries = []
    for serial in revoked:
        builder = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(now() - HOUR)
        if reason is not None:
            builder = builder.add_extension(x509.CRLReason(reason), False)
        entries.append(builder.build())
    builder = x509.CertificateRevocationListBuilder(ca.subject, this, this + until, list(extensions), entries)
    return builder.sign(signer or ca.key, digest or hashes.SHA256()).public_bytes(Encoding.DER)


def serial_of(certificate: bytes) -> int:
    return x509.load_der_x509_certificate(certificate).serial_number


@dataclass
class Responder:
    """Serves `/ocsp/NAME` and `/crl/NAME`. `answers[path]` is octets, a callable of the request body, or a status."""

    answers: dict[str, object] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    url: str = ""
    delay: float = 0.0

    def ocsp(self, ca: Ca, certificate: bytes, name="x", **more) -> None:
        self.answers[f"/ocsp/{name}"] = lambda body: ocsp_answer(
            ca, certificate, request=ocsp.load_der_ocsp_request(body), **more
        )

    async def handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        self.asked.append(request.path)
        if self.delay:
            await asyncio.sleep(self.delay)
        found = self.answers.get(request.path, 404)
        if callable(found):
            found = found(body)
        if isinstance(found, web.StreamResponse):
            return found
        return web.Response(status=found) if isinstance(found, int) else web.Response(body=found)

    @contextlib.asynccontextmanager
    async def running(self):
        async with serving(self.handle) as place:
            self.url = f"http://{place}"
            yield self
