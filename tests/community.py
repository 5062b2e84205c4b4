"""A community around our gateway: a CA, a locator, a publisher, and a partner that no agreement names."""

import contextlib
import datetime
import os
import uuid
from dataclasses import dataclass

from msgspec.structs import replace

from gateway.as4.outbound import secure_signal
from gateway.as4.pmode import Identifier
from gateway.as4.profiles import PROFILES
from gateway.as4.units import PartyId, Receipt
from gateway.config import Discovery
from gateway.keys.keyring import SoftwareSigningKey
from gateway.plugin import PartSubmission, PropertyValue, Submission
from gateway.transport.discovery.bdxl import name_of
from tests.discovery import TRANSPORT, DnsServer, Publisher, Signer, metadata_1, path_1
from tests.peer import Keys, Peer
from tests.pki import SIGN, Ca, key, policies
from tests.world import CALLER, CORNERS, LV, Listener, World, to_pem, world

TYPE = "urn:example:community"
LT = PartyId("AP_LT_01", TYPE)
POLICY = "1.3.6.1.4.1.99999.1"
ZONE = "sml.example"
WHO = Identifier("9934:110053842", "iso6523-actorid-upis")
SERVICE = ("urn:oasis:names:tc:ebcore:ebrs:ebms:binding:1.0", "QueryManager")
TO_LT = (*(p for p in CORNERS if p.name != "finalRecipient"), PropertyValue("finalRecipient", WHO.value, WHO.scheme))

ROOT = Ca.root("Community Root")
ISSUING = ROOT.ca("Community Issuing", extensions=[policies(POLICY)])
LT_KEY = key("rsa", 61)
SMP = Signer(key("rsa", 62), ROOT.leaf("SMP", key("rsa", 62).public_key(), key_usage=SIGN))

AGREEMENT = """
[parties.community]
any = true
type = "urn:example:community"
trust = {{ anchors = "community.pem"{trust} }}
discovery = {{ zone = "sml.example", publisher_trust = {{ anchors = "community.pem", subject = "SMP" }} }}
"""


AGREEMENT_2 = """
[parties.community]
any = true
type = "urn:example:community"
trust = { anchors = "community.pem", intermediates = "issuing.pem" }

[parties.community.discovery]
zone = "sml.example"
smp_version = "2.0"
publisher_trust = { anchors = "community.pem", subject = "SMP" }
"""
EXCHANGE = """
[[exchanges]]
service = "urn:srv"
action = "urn:act"
from_role = "urn:r1"
to_role = "urn:r2"
properties = ["originalSender", "finalRecipient"]
metadata = { document = "urn:doc", document_scheme = "urn:scheme", process = "urn:proc" }
"""


def leaf(cn="AP_LT_01", ca=ISSUING, private=LT_KEY, **more) -> bytes:
    more.setdefault("extensions", [policies(POLICY)])
    return ca.leaf(cn, private.public_key(), **more)


@dataclass
class Community:
    """Our gateway, a partner it has no agreement with, and what is published about that partner."""

    lv: World
    dns: DnsServer
    smp: Publisher
    listener: Listener
    lt: Peer

    def publish(self, *, certificate: bytes | None = None, endpoint: str | None = None, signer: Signer = SMP,
                document="ExecuteQueryRequest", **more) -> None:
        endpoints = [(TRANSPORT, endpoint or self.listener.url, certificate or self.lt.keys.signing, *more.pop("dates", ()))]
        made = metadata_1(
            participant=(WHO.scheme, WHO.value), document=(None, document), process=SERVICE, endpoints=endpoints, **more
        )
        self.smp.resources[path_1(str(WHO), f"::{document}")] = signer.sign(made)

    async def submit(self, **more):
        more.setdefault("properties", TO_LT)
        more.setdefault("to_party", None)
        submission = Submission(action="ExecuteQueryRequest", parts=(PartSubmission("application/x-ebrs+xml"),), **more)

        async def content(number):
            yield b"<query/>"

        return await self.lv.door.submit(CALLER, submission, content)

    async def again(self) -> None:
        """Carry out the jobs that wait for their next attempt."""
        for job in self.lv.store._jobs.values():
            job.due_at = datetime.datetime.now(datetime.UTC)
        await self.lv.send_due()


def peer(certificate: bytes, *chain: bytes, private=LT_KEY, party=LT, world_keys=None) -> Peer:
    keys = Keys(private, certificate, private, certificate)
    found = Peer(party, LV, keys, (world_keys.signing,), world_keys.encryption)
    found.signer = SoftwareSigningKey(private, certificate, chain)
    return found


@contextlib.asynccontextmanager
async def communities(folder, *, trust=f', policies = ["{POLICY}"], intermediates = "issuing.pem"', more="", **settings):
    site = folder / "lv"
    (site / "pmodes").mkdir(parents=True, exist_ok=True)
    (site / "pmodes" / "community.pem").write_bytes(to_pem(ROOT.certificate))
    (site / "pmodes" / "issuing.pem").write_bytes(to_pem(ISSUING.certificate))
    listener = Listener()
    async with DnsServer().running() as dns, Publisher().running() as smp, listener.running():
        dns.naptr(name_of(WHO, ZONE), f'100 10 "U" "Meta:SMP" "!.*!{smp.url}!" .')

        def change(config):
            return replace(config, discovery=Discovery(dns_servers=(dns.address,), **settings))

        async with world(site, more=AGREEMENT.format(trust=trust) + more, change=change) as lv:
            lt = peer(leaf(), ISSUING.certificate, world_keys=lv.keys)
            listener.answer = lambda content_type, body: (
                200, "application/soap+xml; charset=UTF-8", receipt(lt, content_type, body)
            )  # fmt: skip
            found = Community(lv, dns, smp, listener, lt)
            found.publish()
            yield found


def receipt(lt: Peer, content_type: str, body: bytes) -> bytes:
    message, _, references = lt.receive(content_type, body)
    return lt.receipt_for(message, references)


def signed(signer: Peer, message, references) -> bytes:
    unit = Receipt(
        message_id=f"{uuid.uuid4()}@peer.example", timestamp=datetime.datetime.now(datetime.UTC),
        ref_to_message_id=message.message_id, references=tuple(references),
    )  # fmt: skip
    signing = getattr(signer, "signer", None) or signer.keys.signing_key
    return secure_signal(unit, profile=PROFILES[signer.profile], key=signing, token="pkipath", entropy=os.urandom)
