"""A client generated from the served WSDL goes through a whole exchange, as a backend would."""

import pytest
from zeep.exceptions import Fault

from tests.unit.backends.domibus_ws.shapes import EE, LV, OLD, ROLE
from tests.world import EE as EE_PARTY

TYPE_LV, TYPE_EE = LV.split('"')[1], EE.split('"')[1]


def header(client, *, message_id=None, href="cid:message", **changes):
    values = {
        "PartyInfo": {
            "From": {"PartyId": {"_value_1": "AP_LV_01", "type": TYPE_LV}, "Role": ROLE},
            "To": {"PartyId": {"_value_1": "AP_EE_01", "type": TYPE_EE}, "Role": ROLE},
        },
        "CollaborationInfo": {
            "Service": {"_value_1": "QueryManager", "type": "urn:oasis:names:tc:ebcore:ebrs:ebms:binding:1.0"},
            "Action": "ExecuteQueryRequest",
        },
        "MessageProperties": {"Property": [
            {"_value_1": "C1", "name": "originalSender", "type": TYPE_LV},
            {"_value_1": "C4", "name": "finalRecipient", "type": TYPE_EE},
            {"_value_1": "c6d1a9b2-3a57-4c1e-b0d4-9f2200000020", "name": "ExchangeId"},
            {"_value_1": "oots-edm:v2.0", "name": "SpecificationId"},
        ]},
        "PayloadInfo": {"PartInfo": [
            {"href": href, "PartProperties": {"Property": [{"_value_1": "application/x-ebrs+xml", "name": "MimeType"}]}}
        ]},
        **changes,
    }  # fmt: skip
    if message_id:
        values["MessageInfo"] = {"MessageId": message_id}
    return {"ebMSHeaderInfo": {"UserMessage": values}}


async def test_submit_acknowledged_list_retrieve_mark(site, portal, lv):
    client = await portal.zeep()
    done = await client(
        "submitMessage", payload=[{"value": b"<query/>", "payloadId": "cid:message", "contentType": "text/xml"}],
        _soapheaders=header(client, message_id="m1@lv.example"),
    )  # fmt: skip
    assert done.messageID == ["m1@lv.example"] and int(done.messageEntityID) < 2**63
    assert await client("getStatus", "m1@lv.example") == "SEND_ENQUEUED"
    await lv.send_due()
    assert await client("getStatus", "m1@lv.example") == "ACKNOWLEDGED"
    assert await client("getStatusWithAccessPointRole", "m1@lv.example", "RECEIVING") == "NOT_FOUND"
    assert await client("getMessageErrors", "m1@lv.example") in (None, [])

    answer = lv.peer.message([("application/x-ebrs+xml", b"<response/>"), ("application/pdf", b"%PDF" + bytes(range(256)) * 900)])
    assert (await lv.give(answer)).status == 200
    [id] = await client("listPendingMessages")
    assert await client("listPendingMessages", finalRecipient="C4", fromPartyId=EE_PARTY.value) == [id]
    assert not await client("listPendingMessages", finalRecipient="somebody else")
    for keep in ("false", "false"):
        found = await client("retrieveMessage", id, keep)
        assert [p.value for p in found.body.payload] == [b"<response/>", b"%PDF" + bytes(range(256)) * 900]
    user_message = found.header.ebMSHeaderInfo.UserMessage
    assert user_message.MessageInfo.MessageId == id and user_message.PartyInfo.From.PartyId._value_1 == EE_PARTY.value
    assert {p.name: (p._value_1, p.type) for p in user_message.MessageProperties.Property}["finalRecipient"] == ("C4", TYPE_LV)
    assert [p.href for p in user_message.PayloadInfo.PartInfo] == [p.payloadId for p in found.body.payload]
    assert await client("markMessageAsDownloaded", id) == id
    assert not await client("listPendingMessages")
    assert await client("getStatusWithAccessPointRole", id, "RECEIVING") == "DOWNLOADED"
    with pytest.raises(Fault, match="Message not found"):
        await client("markMessageAsDownloaded", id)
    assert (await client("retrieveMessage", id, "false")).body.payload[0].value == b"<response/>"  # nothing is destroyed by reading


async def test_retrieving_takes_the_message_over(portal, lv):
    client = await portal.zeep()
    await lv.give(lv.peer.message())
    [id] = await client("listPendingMessages")
    found = await client("retrieveMessage", id)
    assert found.body.payload[0].value == b"<query/>" and found.body.payload[0].contentType == "application/x-ebrs+xml"
    assert not await client("listPendingMessages")
    assert await client("getStatus", id) == "DOWNLOADED"
    with pytest.raises(Fault) as fault:
        await client("retrieveMessage", id)
    assert fault.value.message == f"Message not found, id [{id}]"


async def test_the_old_interface(portal, lv):
    client = await portal.zeep(path="/services/backend")
    done = await client("submitMessage", payload=[{"value": b"<q/>", "payloadId": "cid:message"}], _soapheaders=header(client))
    [id] = done if isinstance(done, list) else done.messageID
    assert await client("getStatus", id) == "SEND_ENQUEUED"
    await lv.send_due()
    assert await client("getStatus", id) == "ACKNOWLEDGED"
    await lv.give(lv.peer.message())
    [id] = await client("listPendingMessages", "")
    assert (await client("retrieveMessage", id)).body.payload[0].value == b"<query/>"
    assert not await client("listPendingMessages", "")
    assert OLD


async def test_what_failed_is_told(portal, lv):
    lv.listener.answer = lambda *_: (404, "text/html", b"<html>")
    client = await portal.zeep()
    await client("submitMessage", payload=[{"value": b"<q/>", "payloadId": "cid:message"}], _soapheaders=header(client, message_id="m9@x"))
    await lv.send_due()
    assert await client("getStatus", "m9@x") == "WAITING_FOR_RETRY"
    [error] = await client("getMessageErrorsWithAccessPointRole", "m9@x", "SENDING")
    assert (error.domibusErrorCode, error.messageInErrorId, error.mshRole) == ("EBMS_0005", "m9@x", "SENDING")
    assert error.errorDetail and error.timestamp.tzinfo is not None
