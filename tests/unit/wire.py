"""Certificates made for one run, and a client that sends exactly what it is told to."""

import asyncio
import datetime
import ipaddress
import ssl

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

NOW = datetime.datetime.now(datetime.UTC)


class Pki:
    """A CA made for one test run, and what it issues."""

    def __init__(self, folder):
        self.folder = folder
        self.key, self.certificate = self._issue("Test CA", None, ca=True)
        self.ca = folder / "ca.pem"
        self.ca.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def _issue(self, name, issuer, *, ca=False, hosts=("127.0.0.1", "::1", "localhost"), days=1, usage="server"):
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer_key, issuer_name = (issuer.key, issuer.certificate.subject) if issuer else (key, subject)
        names = []
        for host in hosts:
            try:
                names.append(x509.IPAddress(ipaddress.ip_address(host)))
            except ValueError:
                names.append(x509.DNSName(host))
        end = NOW + datetime.timedelta(days=days)
        builder = (
            x509.CertificateBuilder().subject_name(subject).issuer_name(issuer_name).public_key(key.public_key())
            .serial_number(x509.random_serial_number()).not_valid_before(min(NOW, end) - datetime.timedelta(days=2))
            .not_valid_after(end).add_extension(x509.BasicConstraints(ca, None), True)
        )  # fmt: skip
        if not ca:
            oids = {"server": ExtendedKeyUsageOID.SERVER_AUTH, "client": ExtendedKeyUsageOID.CLIENT_AUTH}
            builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
            builder = builder.add_extension(x509.ExtendedKeyUsage([oids[word] for word in usage.split("+")]), False)
        return key, builder.sign(issuer_key, hashes.SHA256())

    def pair(self, name, **options):
        """Path of a PEM file with key and certificate, issued by this CA."""
        key, certificate = self._issue(name, self, **options)
        path = self.folder / f"{name}.pem"
        path.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
            + certificate.public_bytes(serialization.Encoding.PEM)
        )
        return path

    def server_context(self, name="server", *, client_ca=None, required=False, **options):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.pair(name, **options))
        if client_ca:
            context.load_verify_locations(client_ca)
            context.verify_mode = ssl.CERT_REQUIRED if required else ssl.CERT_OPTIONAL
        return context

    def client_context(self, pair=None):
        context = ssl.create_default_context(cafile=self.ca)
        if pair:
            context.load_cert_chain(pair)
        return context


class Raw:
    """A client that sends exactly what it is told to."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    async def send(self, octets):
        self.writer.write(octets)
        await self.writer.drain()

    async def answer(self, timeout=5):
        """Status, headers and body of one answer."""
        async with asyncio.timeout(timeout):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            headers = {n.lower(): v.strip() for n, _, v in (line.partition(":") for line in head[1:-2])}
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
        return int(head[0].split()[1]), headers, body

    async def closed(self, timeout=5):
        """Everything until the connection ends."""
        async with asyncio.timeout(timeout):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""
