"""A small P-Mode file in pieces, so that a test replaces the one it is about: two parties, one leg, all attributes."""

from pathlib import Path

import msgspec

from gateway.as4.pmode import PModeSet
from gateway.pmodes.agreements import Document, File
from gateway.pmodes.bundle import Bundle
from gateway.pmodes.domibus.read import read
from gateway.pmodes.domibus.report import Report
from gateway.pmodes.domibus.translate import Translation, translate
from gateway.pmodes.expand import expand
from gateway.pmodes.shorten import shorten

from .network import certificate

EB = "http://docs.oasis-open.org/ebxml-msg/ebms/v3.0/ns/core/200704/"
UNREGISTERED = "urn:oasis:names:tc:ebcore:partyid-type:unregistered"

PIECES = {
    "root": '<db:configuration xmlns:db="http://domibus.eu/configuration" party="blue">',
    "mpcs": f'<mpc name="defaultMpc" qualifiedName="{EB}defaultMPC" enabled="true" default="true" '
            'retention_downloaded="0" retention_undownloaded="600"/>',
    "roles": '<role name="buyer" value="urn:role:buyer"/><role name="seller" value="urn:role:seller"/>',
    "types": f'<partyIdType name="urn" value="{UNREGISTERED}"/>',
    "parties": '<party name="blue" endpoint="https://blue.example/services/msh">'
               '<identifier partyId="blue-id" partyIdType="urn"/></party>'
               '<party name="red" endpoint="https://red.example/services/msh">'
               '<identifier partyId="red" partyIdType="urn"/></party>',
    "meps": f'<mep name="oneway" value="{EB}oneWay"/><mep name="twoway" value="{EB}twoWay"/>',
    "bindings": f'<binding name="push" value="{EB}push"/><binding name="pull" value="{EB}pull"/>'
                f'<binding name="pushAndPush" value="{EB}pushAndPush"/>',
    "properties": '<property name="os" key="originalSender" datatype="string" required="true"/>'
                  '<property name="fr" key="finalRecipient" datatype="string" required="true"/>'
                  '<propertySet name="corners"><propertyRef property="os"/><propertyRef property="fr"/></propertySet>',
    "payloads": "",
    "securities": '<security name="policy" policy="eDeliveryAS4Policy.xml" signatureMethod="RSA_SHA256"/>',
    "errors": '<errorHandling name="errors" errorAsResponse="true" businessErrorNotifyProducer="true" '
              'businessErrorNotifyConsumer="true" deliveryFailureNotifyProducer="true"/>',
    "agreements": '<agreement name="none" value="" type=""/><agreement name="a1" value="A1" type="T1"/>',
    "services": '<service name="orders" value="urn:orders"/>'
                f'<service name="testService" value="{EB}service"/>',
    "actions": f'<action name="order" value="Order"/><action name="testAction" value="{EB}test"/>',
    "as4": '<receptionAwareness name="awareness" retry="12;4;CONSTANT" duplicateDetection="true"/>'
           '<reliability name="nrr" replyPattern="response" nonRepudiation="true"/>',
    "splitting": "",
    "legs": '<legConfiguration name="orderLeg" service="orders" action="order" security="policy" defaultMpc="defaultMpc" '
            'receptionAwareness="awareness" reliability="nrr" errorHandling="errors" propertySet="corners" '
            'compressPayloads="true"/>',
    "process": '<process name="ordering" mep="oneway" binding="push" initiatorRole="buyer" responderRole="seller" '
               'agreement="none">',
    "initiators": '<initiatorParties><initiatorParty name="blue"/></initiatorParties>',
    "responders": '<responderParties><responderParty name="red"/></responderParties>',
    "process_legs": '<legs><leg name="orderLeg"/></legs>',
    "more": "",
}  # fmt: skip


def pmode(**pieces: str) -> str:
    p = {**PIECES, **pieces}
    assert p.keys() == PIECES.keys(), pieces
    return f"""<?xml version="1.0" encoding="UTF-8"?>
{p["root"]}
<mpcs>{p["mpcs"]}</mpcs>
<businessProcesses>
<roles>{p["roles"]}</roles>
<parties><partyIdTypes>{p["types"]}</partyIdTypes>
{p["parties"]}
</parties>
<meps>{p["meps"]}{p["bindings"]}</meps>
<properties>{p["properties"]}</properties>
{p["payloads"]}
<securities>{p["securities"]}</securities>
<errorHandlings>{p["errors"]}</errorHandlings>
<agreements>{p["agreements"]}</agreements>
<services>{p["services"]}</services>
<actions>{p["actions"]}</actions>
<as4>{p["as4"]}</as4>
{p["splitting"]}
<legConfigurations>{p["legs"]}</legConfigurations>
{p["process"]}{p["initiators"]}{p["responders"]}{p["process_legs"]}</process>
{p["more"]}
</businessProcesses>
</db:configuration>
"""


def translated(text: str | bytes, own: str | None = "blue") -> tuple[Translation, Report]:
    root, report = read(text if isinstance(text, bytes) else text.encode(), "p.xml")
    return translate(root, report, own), report


def short(text: str | bytes, own: str | None = "blue", profile: str | None = None) -> File:
    return shorten(translated(text, own)[0].file, profile)


def legs_of(file: File) -> PModeSet:
    """What a file expands to, every party with some certificate: who pulls must have one."""
    parties = {name: msgspec.structs.replace(party, certificate="some.der") for name, party in file.parties.items()}
    files = Bundle((), {"some.der": certificate("some")})
    return expand([Document(Path("made.toml"), msgspec.structs.replace(file, parties=parties), files)])


def imported(own: str | None = "blue", **pieces: str) -> tuple[dict, Report]:
    """The legs of a P-Mode by (from, to, exchange name), and the report."""
    translation, report = translated(pmode(**pieces), own)
    pmodes = legs_of(shorten(translation.file))
    return {tuple(leg.pmode_id.split(":")): leg for leg in pmodes.legs}, report
