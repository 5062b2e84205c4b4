"""What a real Domibus 5.2.1 answered, octet by octet: ours says the same things with the same octets."""

import base64
from datetime import datetime
from pathlib import Path

import pytest
from lxml import etree

from gateway.backends.domibus_ws import writing
from gateway.backends.domibus_ws.names import PLUGIN
from gateway.plugin import MessageView, PartView, PartyRef, PropertyValue

RECORDED = Path(__file__).parents[5] / "shared/vectors/oots"
pytestmark = pytest.mark.skipif(not RECORDED.is_dir(), reason="the recorded answers do not stand beside the project")
EB = "{http://docs.oasis-open.org/ebxml-msg/ebms/v3.0/ns/core/200704/}"


def properties(node):
    return tuple(PropertyValue(p.get("name"), p.text or "", p.get("type")) for p in node.iter(EB + "Property"))


def party(node):
    id = node.find(EB + "PartyId")
    return PartyRef(id.text, id.get("type"), node.findtext(EB + "Role"))


def view_of(root) -> tuple[MessageView, list[bytes]]:
    """The message that a recorded answer hands out."""
    message = root.find(f".//{EB}UserMessage")
    contents = [base64.b64decode(value.text) for value in root.iter("value")]
    parts = []
    for number, (info, content) in enumerate(zip(message.iter(EB + "PartInfo"), contents, strict=True)):
        [mime, *rest] = properties(info)
        parts.append(PartView(number, info.get("href")[4:], mime.value, len(content), "", tuple(rest)))
    service = message.find(f".//{EB}Service")
    return MessageView(
        id="", direction="inbound", state="RECEIVED", message_id=message.findtext(f".//{EB}MessageId"),
        conversation_id=message.findtext(f".//{EB}ConversationId"), mpc=message.get("mpc"),
        timestamp=datetime.fromisoformat(message.findtext(f".//{EB}Timestamp")), created_at=datetime.now().astimezone(),
        from_party=party(message.find(f".//{EB}From")), to_party=party(message.find(f".//{EB}To")),
        service=service.text, service_type=service.get("type"), action=message.findtext(f".//{EB}Action"),
        properties=properties(message.find(f".//{EB}MessageProperties")), parts=tuple(parts),
    ), contents  # fmt: skip


async def once(content: bytes, step: int = 1000):
    for start in range(0, len(content), step):
        yield content[start : start + step]


@pytest.mark.parametrize("name", ["requete", "requete.demarcheInconnue", "erreurObjetIntrouvable", "reponseAvecPieceJointe"])
async def test_a_message_is_handed_out_in_the_same_octets(name):
    recorded = (RECORDED / f"{name}.xml").read_bytes()
    view, contents = view_of(etree.fromstring(recorded))
    pairs = [(part, once(content)) for part, content in zip(view.parts, contents, strict=True)]
    ours = b"".join([block async for block in writing.retrieved(view, pairs, PLUGIN)])
    assert ours == recorded.strip()


def test_lists_and_the_answer_to_a_submission():
    for name in ("listeMessagesEnAttente", "listeMessagesEnAttente.vide"):
        recorded = (RECORDED / f"{name}.xml").read_bytes().strip()
        ids = [node.text for node in etree.fromstring(recorded).iter("messageID")]
        assert writing.listed("listPendingMessagesResponse", ids) == recorded
    recorded = (RECORDED / "soumissionMessage.xml").read_bytes().strip()
    root = etree.fromstring(recorded)
    inside = "".join(writing.text(name, root.findtext(f".//{name}")) for name in ("messageID", "messageEntityID"))
    assert writing.envelope(writing.element("submitResponse", inside)) == recorded
