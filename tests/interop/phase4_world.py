"""One exchange between the gateway and phase4, either way, compared field by field."""

import hashlib
import itertools
import uuid
from dataclasses import dataclass, field
from pathlib import Path

from gateway.as4 import ns
from gateway.client import Part
from gateway.keys.development import PartyFiles
from tests.interop.phase4_node import Gateway, Taken
from tests.interop.phase4_peer import Phase4
from tests.interop.phase4_proxy import Wire
from tests.interop.phase4_sites import (
    AGREEMENT,
    AGREEMENT_TYPE,
    INITIATOR,
    RESPONDER,
    SERVICE,
    SERVICE_TYPE,
    TYPE,
    Site,
)
from tests.peer import Authority

CORNER = "urn:oasis:names:tc:ebcore:partyid-type:iso6523:0088"
#: Four corners, with and without a type, and one property with characters that XML must escape.
PROPERTIES = (
    {"name": "originalSender", "value": "7300010000001", "type": CORNER},
    {"name": "finalRecipient", "value": "urn:interop:c4"},
    {"name": "trackingIdentifier", "value": "a<b>&\"'c é ļ 語"},
)


@dataclass(frozen=True)
class Payload:
    """One part to send. `compress=False` leaves it as it is on the wire."""

    content: bytes
    mime_type: str = "application/xml"
    compress: bool = True
    charset: str | None = None
    #: Part properties as (name, value, type); phase4 can read a type here and not write one.
    properties: tuple[tuple[str, str, str | None], ...] = ()

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


@dataclass(frozen=True)
class World:
    folder: Path
    peer: Phase4
    gateway: Gateway
    url: str
    keys: dict[Site, tuple[PartyFiles, PartyFiles]]
    #: From us to phase4, and from phase4 to us, for the site `faults`.
    out: Wire
    back: Wire
    authority: Authority
    _numbers: itertools.count = field(default_factory=itertools.count)

    # -- ours to phase4 -------------------------------------------------------------------

    def submit(self, site: Site, payloads: tuple[Payload, ...], *, gateway: Gateway | None = None,
               action: str = "Exchange", **more) -> str:
        """Hand a message to the gateway; its MessageId."""
        message_id = f"{uuid.uuid4()}@gw.interop.example"
        (gateway or self.gateway).client.submit(
            {"id": site.peer, "type": TYPE}, action,
            [Part(p.content, p.mime_type, compress=p.compress, cid=f"part-{n}-{uuid.uuid4().hex[:8]}@gw.example",
                  properties=_properties(p)) for n, p in enumerate(payloads)],
            from_party={"id": site.us, "type": TYPE}, service=SERVICE, service_type=SERVICE_TYPE,
            properties=PROPERTIES, message_id=message_id, conversation_id=f"conversation of {message_id}", **more,
        )  # fmt: skip
        return message_id

    def check_sent(self, site: Site, message_id: str, payloads: tuple[Payload, ...], *,
                   gateway: Gateway | None = None, action: str = "Exchange", seconds: float = 60) -> dict:
        """Acknowledged here, and there what was sent: header, digests, signature, encryption. phase4's report."""
        view = (gateway or self.gateway).client.wait(message_id, seconds)
        assert view["state"] == "ACKNOWLEDGED", (view["state"], view.get("error_code"), view.get("error_detail"))
        assert view["receipt_at"]  # and it was verified: nothing else acknowledges
        report = self.peer.wait(message_id)
        assert report["signed"] is True and report["encrypted"] is bool(payloads), report
        assert report["signer"].startswith(f"CN={site.us}")
        assert report["bodyIsEmpty"] is True
        assert (report["from"], report["to"]) == ([{"id": site.us, "type": TYPE}], [{"id": site.peer, "type": TYPE}])
        assert (report["fromRole"], report["toRole"]) == (INITIATOR, RESPONDER)
        assert (report["service"], report["serviceType"]) == (SERVICE, SERVICE_TYPE)
        assert report["action"] == action and report["refToMessageId"] is None
        assert report["agreement"] == ({"value": AGREEMENT, "type": AGREEMENT_TYPE} if action == "Agreed" else None)
        assert report["conversationId"] == f"conversation of {message_id}"
        assert report["properties"] == [{"type": None, **p} for p in PROPERTIES]
        assert [p["sha256"] for p in report["payloads"]] == [p.sha256 for p in payloads]
        assert [p["href"] for p in report["parts"]] == [f"cid:{p['cid']}" for p in view.get("parts", ())]
        for part, payload in zip(report["parts"], payloads, strict=True):
            given = {p["name"]: (p["value"], p["type"]) for p in part["properties"]}
            assert given.pop(ns.MIME_TYPE) == (payload.mime_type, None)
            assert given.pop(ns.COMPRESSION_TYPE, None) == ((ns.GZIP, None) if payload.compress else None)
            assert given == {name: (value, type) for name, value, type in _named(payload)}
        return report

    # -- phase4 to ours -------------------------------------------------------------------

    def message(self, site: Site, payloads: tuple[Payload, ...], **more) -> dict:
        """A message for phase4 to send; the payloads lie in files."""
        message_id = more.pop("messageId", None) or f"{uuid.uuid4()}@p4.interop.example"
        parts = []
        for n, payload in enumerate(payloads):
            path = self.folder / "peer" / f"out-{next(self._numbers)}"
            path.write_bytes(payload.content)
            parts.append({
                "file": str(path), "contentId": f"part-{n}-{path.name}@p4.example", "mimeType": payload.mime_type,
                "compress": payload.compress, **({"charset": payload.charset} if payload.charset else {}),
                "properties": [{"name": name, "value": value} for name, value, _ in payload.properties],
            })  # fmt: skip
        return {
            "url": self.url, "messageId": message_id, "conversationId": f"conversation of {message_id}",
            "from": site.peer, "fromType": TYPE, "to": site.us, "toType": TYPE, "service": SERVICE,
            "serviceType": SERVICE_TYPE, "action": "Exchange", "properties": list(PROPERTIES), "parts": parts, **more,
        }  # fmt: skip

    def check_received(self, site: Site, message: dict, payloads: tuple[Payload, ...], result: dict, *,
                       gateway: Gateway | None = None) -> Taken:
        """phase4 verified our receipt, and our consumer has what was sent."""
        assert result["ok"] is True, result
        assert result["signal"]["present"] and result["signal"]["signed"], result
        assert result["signal"]["references"] == "match" and result["signal"]["signer"].startswith(f"CN={site.us}")
        taken = (gateway or self.gateway).wait_taken(message["messageId"])
        view = taken.view
        assert (view["from_party"]["id"], view["from_party"]["type"]) == (site.peer, TYPE)
        assert (view["to_party"]["id"], view["to_party"]["type"]) == (site.us, TYPE)
        assert (view["from_party"]["role"], view["to_party"]["role"]) == (INITIATOR, RESPONDER)
        assert (view["service"], view["service_type"], view["action"]) == (SERVICE, SERVICE_TYPE, message["action"])
        assert (view.get("agreement_ref"), view.get("agreement_type")) == (
            message.get("agreement"), message.get("agreementType"))  # fmt: skip
        assert view["conversation_id"] == message["conversationId"] and view.get("ref_to_message_id") is None
        assert [dict(p) for p in view["properties"]] == list(PROPERTIES)
        assert taken.digests == [p.sha256 for p in payloads] == [p["sha256"] for p in view.get("parts", [])]
        for part, payload, sent in zip(view.get("parts", []), payloads, message["parts"], strict=True):
            assert part["cid"] == sent["contentId"] and part["size"] == len(payload.content)
            assert part["mime_type"] == payload.mime_type
            given = {p["name"]: p["value"] for p in part.get("properties", [])}
            given.pop(ns.MIME_TYPE, None)
            assert given == {name: value for name, value, _ in _named(payload)}
        return taken


def _named(payload: Payload) -> tuple[tuple[str, str, str | None], ...]:
    """Part properties beside MimeType and CompressionType."""
    return (*([(ns.CHARACTER_SET, payload.charset, None)] if payload.charset else []), *payload.properties)


def _properties(payload: Payload) -> list[dict[str, str]]:
    return [{"name": name, "value": value, **({"type": type} if type else {})}
            for name, value, type in _named(payload)]  # fmt: skip
