"""A DNS server and a publisher of service metadata on loopback, for looking partners up in tests.

Both are real: queries over UDP and TCP answered by dnspython's reading and writing of messages, and HTTP
answered by aiohttp, the metadata signed by signxml as publishers sign it.
"""

import asyncio
import base64
import contextlib
import datetime
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import quote

import dns.flags
import dns.message
import dns.name
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rrset
import signxml
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding
from lxml import etree

from tests.serving import serving

UTC = datetime.UTC
TRANSPORT = "bdxr-transport-ebms3-as4-v1p0"
EBCORE = "urn:oasis:names:tc:ebcore:partyid-type:"


@dataclass
class DnsServer:
    """Answers from `records`: lower-case name → {type: [rdata texts]}, or a response code such as "SERVFAIL".

    `delay` seconds pass before each answer; with `truncate` UDP answers are empty and say so.
    """

    records: dict[str, dict[str, list[str]] | str] = field(default_factory=dict)
    delay: float = 0.0
    truncate: bool = False
    garbage: bool = False
    asked: list[tuple[str, str, str]] = field(default_factory=list)
    address: str = ""

    def naptr(self, name: str, *records: str) -> None:
        self.records[name.lower()] = {"NAPTR": list(records)}

    def answer(self, octets: bytes, how: str) -> bytes:
        if self.garbage:
            return octets[:2] + b"\xff" * 30
        query = dns.message.from_wire(octets)
        question = query.question[0]
        name, kind = question.name.to_text(omit_final_dot=True).lower(), dns.rdatatype.to_text(question.rdtype)
        self.asked.append((how, name, kind))
        response = dns.message.make_response(query)
        response.flags |= dns.flags.RA
        found = self.records.get(name)
        if isinstance(found, str):
            response.set_rcode(dns.rcode.from_text(found))
        elif found is None:
            response.set_rcode(dns.rcode.NXDOMAIN)
        elif how == "udp" and self.truncate:
            response.flags |= dns.flags.TC
        else:
            # As a recursive server: a chain of CNAMEs is followed, and all of it is in the answer.
            for _ in range(8):
                each = kind if kind in found else "CNAME"
                if each not in found:
                    break
                response.answer.append(dns.rrset.from_text(name + ".", 60, "IN", each, *found[each]))
                if each == kind:
                    break
                name = found["CNAME"][0].rstrip(".").lower()
                found = self.records.get(name, {})
        return response.to_wire(max_size=65_535)

    @contextlib.asynccontextmanager
    async def running(self):
        server = self

        class Udp(asyncio.DatagramProtocol):
            def connection_made(self, transport):
                self.transport = transport

            def datagram_received(self, octets, address):
                loop = asyncio.get_running_loop()
                loop.call_later(server.delay, lambda: self.transport.sendto(server.answer(octets, "udp"), address))

        async def tcp(reader, writer):
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                size = struct.unpack("!H", await reader.readexactly(2))[0]
                octets = server.answer(await reader.readexactly(size), "tcp")
                await asyncio.sleep(server.delay)
                writer.write(struct.pack("!H", len(octets)) + octets)
                await writer.drain()
            writer.close()

        listener = await asyncio.start_server(tcp, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Udp, local_addr=("127.0.0.1", port))
        self.address = f"127.0.0.1:{port}"
        try:
            yield self
        finally:
            transport.close()
            listener.close()
            await listener.wait_closed()


@dataclass
class Publisher:
    """An SMP. `resources` maps paths (as they are in the request line) to octets, a status, or a callable."""

    resources: dict[str, bytes | int | Callable] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    url: str = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        path = request.raw_path
        self.asked.append(path)
        found = self.resources.get(path, 404)
        if callable(found):
            found = await found(request)
        if isinstance(found, web.StreamResponse):
            return found
        if isinstance(found, int):
            return web.Response(status=found)
        return web.Response(body=found, content_type="application/xml")

    @contextlib.asynccontextmanager
    async def running(self):
        async with serving(self.handle, patience=0.1) as place:
            self.url = f"http://{place}/smp"
            yield self


def path_1(participant: str, document: str) -> str:
    """Path of SMP 1.0 metadata below `/smp`, for a participant and a document as they are joined."""
    return f"/smp/{quote(participant, safe='')}/services/{quote(document, safe='')}"


def path_2(participant: str, document: str) -> str:
    return f"/smp/bdxr-smp-2/{quote(participant, safe='')}/services/{quote(document, safe='')}"


# -- metadata -------------------------------------------------------------------


def metadata_1(
    *, participant=("iso6523-actorid-upis", "0088:4035811991021"), document=(None, "urn:doc"), process=(None, "urn:process"),
    endpoints=(), redirect: tuple[str, str] | None = None,
) -> etree._Element:
    """SMP 1.0, still unsigned. An endpoint is (transport profile, URL, certificate DER[, activation, expiration])."""
    ns = "http://docs.oasis-open.org/bdxr/ns/SMP/2016/05"

    def el(parent, tag, text=None, **attributes):
        made = etree.SubElement(parent, f"{{{ns}}}{tag}", {k: v for k, v in attributes.items() if v is not None})
        made.text = text
        return made

    root = etree.Element(f"{{{ns}}}SignedServiceMetadata", nsmap={None: ns})
    metadata = el(root, "ServiceMetadata")
    if redirect:
        el(el(metadata, "Redirect", href=redirect[0]), "CertificateUID", redirect[1])
        return root
    information = el(metadata, "ServiceInformation")
    el(information, "ParticipantIdentifier", participant[1], scheme=participant[0])
    el(information, "DocumentIdentifier", document[1], scheme=document[0])
    found = el(el(information, "ProcessList"), "Process")
    el(found, "ProcessIdentifier", process[1], scheme=process[0])
    listed = el(found, "ServiceEndpointList")
    for profile, url, certificate, *dates in endpoints:
        endpoint = el(listed, "Endpoint", transportProfile=profile)
        el(endpoint, "EndpointURI", url)
        for tag, moment in zip(("ServiceActivationDate", "ServiceExpirationDate"), dates, strict=False):
            if moment is not None:
                el(endpoint, tag, moment)
        el(endpoint, "Certificate", base64.b64encode(certificate).decode())
    return root


def metadata_2(
    *, participant=("iso6523-actorid-upis", "0088:4035811991021"), document=(None, "urn:doc"), process=(None, "urn:process"),
    endpoints=(), redirect: tuple[str, tuple[bytes, ...]] | None = None,
) -> etree._Element:
    """SMP 2.0, still unsigned. An endpoint is (profile, URL, [(type code, DER)][, activation, expiration])."""
    base = "http://docs.oasis-open.org/bdxr/ns/SMP/2/"
    md, sma, smb = base + "ServiceMetadata", base + "AggregateComponents", base + "BasicComponents"

    def el(parent, space, tag, text=None, **attributes):
        made = etree.SubElement(parent, f"{{{space}}}{tag}", {k: v for k, v in attributes.items() if v is not None})
        made.text = text
        return made

    def certificate(parent, code, der):
        made = el(parent, sma, "Certificate")
        if code:
            el(made, smb, "TypeCode", code)
        el(made, smb, "ContentBinaryObject", base64.b64encode(der).decode(), mimeCode="application/base64")

    root = etree.Element(f"{{{md}}}ServiceMetadata", nsmap={None: md, "sma": sma, "smb": smb})
    el(root, smb, "SMPVersionID", "2.0")
    el(root, smb, "ID", document[1], schemeID=document[0])
    el(root, smb, "ParticipantID", participant[1], schemeID=participant[0])
    found = el(root, sma, "ProcessMetadata")
    if process:
        el(el(found, sma, "Process"), smb, "ID", process[1], schemeID=process[0])
    if redirect:
        made = el(found, sma, "Redirect")
        el(made, smb, "PublisherURI", redirect[0])
        for der in redirect[1]:
            certificate(made, None, der)
    for profile, url, certificates, *dates in endpoints:
        endpoint = el(found, sma, "Endpoint")
        el(endpoint, smb, "TransportProfileID", profile)
        for tag, moment in zip(("ActivationDate", "ExpirationDate"), dates, strict=False):
            if moment is not None:
                el(endpoint, smb, tag, moment)
        el(endpoint, smb, "AddressURI", url)
        for code, der in certificates:
            certificate(endpoint, code, der)
    return root


@dataclass
class Signer:
    """Signs metadata with a key and its certificate (DER), as publishers do: enveloped, inclusive C14N."""

    key: object
    certificate: bytes
    chain: tuple[bytes, ...] = ()

    def sign(self, root: etree._Element, **more) -> bytes:
        more.setdefault("c14n_algorithm", signxml.CanonicalizationMethod.CANONICAL_XML_1_0)
        algorithm = more.pop("signature_algorithm", None)
        if algorithm is None:
            algorithm = "ecdsa-sha256" if isinstance(self.key, ec.EllipticCurvePrivateKey) else "rsa-sha256"
        signer = signxml.XMLSigner(signature_algorithm=algorithm, **more)
        pems = [
            x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM) for der in (self.certificate, *self.chain)
        ]
        signed = signer.sign(root, key=self.key, cert=b"".join(pems).decode())
        return etree.tostring(signed, xml_declaration=True, encoding="UTF-8")


def now(**delta) -> str:
    """A moment from now, as xs:dateTime."""
    return (datetime.datetime.now(UTC) + datetime.timedelta(**delta)).strftime("%Y-%m-%dT%H:%M:%SZ")
