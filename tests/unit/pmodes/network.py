"""A P-Mode and a truststore as a network's portal makes them, for tests: own data, the published shape [oots 1.6].

    Network(parties).xml("AP_LV_01")      the P-Mode for one access point
    jks({alias: DER}, "test123")          a JKS truststore, written octet by octet as the format has it

`planted` is the network with the defects that were found in real files [product finding 2].
"""

import hashlib
import struct
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from xml.sax.saxutils import quoteattr

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, pkcs12

EB = "http://docs.oasis-open.org/ebxml-msg/ebms/v3.0/ns/core/200704/"
UNREGISTERED = "urn:oasis:names:tc:ebcore:partyid-type:unregistered"
ROLE = "http://sdg.europa.eu/edelivery/gateway"
BINDING_TYPE = "urn:oasis:names:tc:ebcore:ebrs:ebms:binding:1.0"
COUNTRIES = ("LV EE FI SE DK DE NL BE FR LU IE PT ES IT MT EL CY BG RO HU SI HR AT CZ SK PL LT NO IS LI UA").split()
PASSWORD = "test123"


@dataclass(frozen=True)
class Party:
    name: str
    type_name: str
    endpoint: str
    id: str | None = None

    @property
    def party_id(self) -> str:
        return self.id or self.name


def _parties() -> tuple[Party, ...]:
    made = [Party(f"AP_{cc}_01", f"type{cc}", f"https://ap.example.{cc.lower()}/services/msh") for cc in COUNTRIES]
    return (*made, Party("oots_test_platform", "typeOOTS", "https://platform.oots.example/services/msh"))


@dataclass(frozen=True)
class Network:
    """32 access points with two processes, every value as published."""

    parties: tuple[Party, ...] = field(default_factory=_parties)
    properties: tuple[tuple[str, bool], ...] = (("originalSender", True), ("finalRecipient", True))
    security: str = 'policy="eDeliveryAS4Policy_BST.xml" signatureMethod="RSA_SHA256"'
    lcm: bool = True
    mpc: str = 'retention_downloaded="0" retention_undownloaded="3600"'

    def with_party(self, party: str, /, **change) -> "Network":
        return replace(self, parties=tuple(replace(p, **change) if p.name == party else p for p in self.parties))

    def xml(self, own: str) -> str:
        types = "".join(
            f'        <partyIdType name="type{cc}" value="{UNREGISTERED}:{cc.lower() if cc == "OOTS" else cc}"/>\n'
            for cc in (*COUNTRIES, "OOTS")
        )
        parties = "".join(
            f'      <party name={quoteattr(p.name)} endpoint={quoteattr(p.endpoint)} allowChunking="false">\n'
            f"        <identifier partyId={quoteattr(p.party_id)} partyIdType={quoteattr(p.type_name)}/>\n"
            "      </party>\n"
            for p in self.parties
        )
        properties = "".join(
            f'      <property name="{n}Property" key="{n}" datatype="string" required="{str(r).lower()}"/>\n'
            for n, r in self.properties
        )
        refs = "".join(f'        <propertyRef property="{n}Property"/>\n' for n, _ in self.properties)
        return f"""<?xml version="1.0" encoding="UTF-8"?>
<db:configuration xmlns:db="http://domibus.eu/configuration" party={quoteattr(own)}>
  <mpcs>
    <mpc name="defaultMpc" qualifiedName="{EB}defaultMPC" enabled="true" default="true" {self.mpc}/>
  </mpcs>
  <businessProcesses>
    <roles>
      <role name="defaultInitiatorRole" value="{ROLE}"/>
      <role name="defaultResponderRole" value="{ROLE}"/>
    </roles>
    <parties>
      <partyIdTypes>
{types}      </partyIdTypes>
{parties}    </parties>
    <meps>
      <mep name="oneway" value="{EB}oneWay"/>
      <mep name="twoway" value="{EB}twoWay"/>
      <binding name="push" value="{EB}push"/>
      <binding name="pushAndPush" value="{EB}pushAndPush"/>
    </meps>
    <properties>
{properties}      <propertySet name="fourCorners">
{refs}      </propertySet>
    </properties>
    <securities>
      <security name="ootsPolicy" {self.security}/>
      <security name="noSigNoEnc" policy="doNothingPolicy.xml" signatureMethod="RSA_SHA256"/>
      <security name="signOnly" policy="signOnly.xml" signatureMethod="RSA_SHA256"/>
    </securities>
    <errorHandlings>
      <errorHandling name="errors" errorAsResponse="true" businessErrorNotifyProducer="false"
                     businessErrorNotifyConsumer="false" deliveryFailureNotifyProducer="false"/>
    </errorHandlings>
    <agreements>
      <agreement name="agreementEmpty" value="" type=""/>
    </agreements>
    <services>
      <service name="queryManager" value="QueryManager" type="{BINDING_TYPE}"/>
      <service name="lifecycleManager" value="LifecycleManager" type="{BINDING_TYPE}"/>
      <service name="testService" value="{EB}service"/>
    </services>
    <actions>
      <action name="request" value="ExecuteQueryRequest"/>
      <action name="response" value="ExecuteQueryResponse"/>
      <action name="exception" value="ExceptionResponse"/>
      <action name="submit" value="SubmitObjectsRequest"/>
      <action name="submitted" value="SubmitObjectsResponse"/>
      <action name="tcAction" value="{EB}test"/>
    </actions>
    <as4>
      <receptionAwareness name="awareness" retry="12;4;CONSTANT" duplicateDetection="true"/>
      <reliability name="nrr" nonRepudiation="true" replyPattern="response"/>
    </as4>
    <splittingConfigurations>
      <splitting name="split" fragmentSize="20" compression="true" joinInterval="1440"/>
    </splittingConfigurations>
    <legConfigurations>
{self._legs()}    </legConfigurations>
{self._process("ootsProcess", ("ootsRequest", "ootsResponse", "ootsError", "ootsTest"))}\
{self._process("lcmProcess", ("lcmRequest", "lcmResponse", "lcmError")) if self.lcm else ""}\
  </businessProcesses>
</db:configuration>
"""

    @staticmethod
    def _legs() -> str:
        legs = (
            ("ootsRequest", "queryManager", "request", "true"),
            ("ootsResponse", "queryManager", "response", "false"),
            ("ootsError", "queryManager", "exception", "true"),
            ("ootsTest", "testService", "tcAction", "true"),
            ("lcmRequest", "lifecycleManager", "submit", "true"),
            ("lcmResponse", "lifecycleManager", "submitted", "true"),
            ("lcmError", "lifecycleManager", "exception", "false"),
        )
        return "".join(
            f'      <legConfiguration name="{name}" service="{service}" action="{action}" security="ootsPolicy"\n'
            '                        defaultMpc="defaultMpc" receptionAwareness="awareness" reliability="nrr"\n'
            f'                        errorHandling="errors" propertySet="fourCorners" splitting="split" compressPayloads="{compress}"/>\n'
            for name, service, action, compress in legs
        )

    def _process(self, name: str, legs: tuple[str, ...]) -> str:
        initiators = "".join(f"        <initiatorParty name={quoteattr(p.name)}/>\n" for p in self.parties)
        responders = "".join(f"        <responderParty name={quoteattr(p.name)}/>\n" for p in self.parties)
        entries = "".join(f'        <leg name="{leg}"/>\n' for leg in legs)
        return f"""    <process name="{name}" agreement="agreementEmpty" mep="oneway" binding="push"
             initiatorRole="defaultInitiatorRole" responderRole="defaultResponderRole">
      <initiatorParties>
{initiators}      </initiatorParties>
      <responderParties>
{responders}      </responderParties>
      <legs>
{entries}      </legs>
    </process>
"""


# -- certificates -------------------------------------------------------------------


@cache
def _key() -> rsa.RSAPrivateKey:
    return rsa.generate_private_key(public_exponent=65537, key_size=2048)


@cache
def certificate(name: str, *, days: int = 400, begun: int = 100, country: str | None = None) -> bytes:
    """A self-signed certificate, as 27 of the 32 were. All have one key: keys take long to make."""
    now = datetime.now(UTC)
    parts = [x509.NameAttribute(x509.NameOID.COMMON_NAME, name)]
    if country:
        parts.append(x509.NameAttribute(x509.NameOID.COUNTRY_NAME, country))
    subject = x509.Name(parts)
    builder = (
        x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(_key().public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=begun)).not_valid_after(now + timedelta(days=days))
    )  # fmt: skip
    return builder.sign(_key(), hashes.SHA256()).public_bytes(Encoding.DER)


def truststore(network: Network, **other: bytes | None) -> dict[str, bytes]:
    """One certificate for each party under its name in lower case; `other` replaces (None: leaves out)."""
    made = {p.name.lower(): certificate(p.name) for p in network.parties}
    return {alias: der for alias, der in {**made, **other}.items() if der is not None}


def jks(entries: dict[str, bytes], password: str = PASSWORD) -> bytes:
    """A JKS of trusted certificates."""
    def text(value: str) -> bytes:
        octets = value.encode()
        return struct.pack(">H", len(octets)) + octets

    body = struct.pack(">III", 0xFEEDFEED, 2, len(entries))
    for alias, der in entries.items():
        body += struct.pack(">I", 2) + text(alias) + struct.pack(">Q", 1_700_000_000_000)
        body += text("X.509") + struct.pack(">I", len(der)) + der
    return body + hashlib.sha1(password.encode("utf-16-be") + b"Mighty Aphrodite" + body).digest()


def p12(entries: dict[str, bytes], password: str = PASSWORD) -> bytes:
    """A PKCS#12 of certificates with friendly names."""
    from cryptography.hazmat.primitives.serialization import BestAvailableEncryption

    named = [pkcs12.PKCS12Certificate(x509.load_der_x509_certificate(der), alias.encode()) for alias, der in entries.items()]
    return pkcs12.serialize_key_and_certificates(None, None, None, named, BestAvailableEncryption(password.encode()))


# -- what was found in the field -------------------------------------------------------

PLAIN_HTTP = ("AP_SE_01", "AP_DK_01", "AP_NL_01", "AP_IE_01", "AP_PT_01", "AP_IT_01", "AP_MT_01", "AP_PL_01", "AP_UA_01")


def planted() -> tuple[Network, dict[str, bytes]]:
    """The network with a trailing blank in a URL, nine plain http, a raw address, an odd path, a query string,
    a shared endpoint, a party id that is not the name; and its truststore with a missing, an expired and a
    stray certificate, odd subjects, and aliases of both conventions."""
    network = Network()
    for number, name in enumerate(PLAIN_HTTP):
        cc = name[3:5].lower()
        network = network.with_party(name, endpoint=f"http://ap.example.{cc}:{8080 + number}/domibus/services/msh")
    network = network.with_party("AP_FI_01", endpoint="https://ap.example.fi/services/msh ")
    network = network.with_party("AP_ES_01", endpoint="https://192.0.2.77:8443/services/msh")
    network = network.with_party("AP_EE_01", endpoint="https://ap.example.ee/service/endpoint")
    network = network.with_party("AP_HR_01", endpoint="https://ap.example.hr/services/msh?domain=oots")
    network = network.with_party("AP_LI_01", endpoint="https://ap.example.at/services/msh")
    network = network.with_party("AP_SK_01", id="sk_test_ap")
    store = truststore(
        network, ap_el_01=None, ap_ro_01=certificate("AP_RO_01", days=-5), ap_lt_01=None,
        ap_lt_01_rsa_sign=certificate("LT sign"), AP_LT_01_RSA_ENCRYPT=certificate("LT encrypt"),
        ap_xx_99=certificate("AP_XX_99"), ap_cz_01=certificate("somebody else", country="DE"),
    )  # fmt: skip
    return network, store
