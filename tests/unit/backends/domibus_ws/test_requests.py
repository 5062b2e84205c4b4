"""Envelopes made by hand: the encodings, shapes and mistakes of clients in the field, and what each is answered."""

import asyncio
import base64
import os
import re
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from lxml import etree

from gateway.backends.domibus_ws import door
from gateway.plugin import MessageFilter
from tests.unit.backends.domibus_ws.shapes import (
    OLD,
    PART,
    PLUGIN,
    envelope,
    include,
    message_id,
    messaging,
    operation,
    payload,
    related,
    submit,
)
from tests.world import CALLER

#: Where a client may post to.
PATHS = ("/services/wsplugin", "/domibus/services/wsplugin", "/services/wsplugin/submitMessage", "/services/wsplugin/")


def ids_of(octets: bytes) -> list[str]:
    return [node.text for node in etree.fromstring(octets).iter("messageID")]


def fault_of(octets: bytes) -> tuple[str, str | None, str | None]:
    """(Reason, code, message)"""
    root = etree.fromstring(octets)
    reason = root.findtext(".//{*}Reason/{*}Text")
    detail = root.find(".//{*}FaultDetail")
    return (reason, None, None) if detail is None else (reason, detail.findtext("code"), detail.findtext("message"))


async def stored(lv, count: int = 1):
    found, _ = await lv.door.messages(CALLER, MessageFilter(direction="outbound"))
    assert len(found) == count
    return found


async def contents(lv, view) -> list[bytes]:
    return [
        b"".join([block async for block in (await lv.door.payload(CALLER, view.id, part.cid))[1]]) for part in view.parts
    ]


# -- what is understood -------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
async def test_every_address_takes_a_submission(portal, lv, path):
    status, kind, octets = await portal.post(submit(), path=path)
    assert (status, kind) == (200, "application/soap+xml;charset=UTF-8"), octets
    [view] = await stored(lv)
    assert ids_of(octets) == [view.message_id]
    assert (view.conversation_id, view.parts[0].cid, view.parts[0].mime_type) == ("c1", "message", "application/x-ebrs+xml")
    assert await contents(lv, view) == [b"<query/>"]


CONTENT = os.urandom(70_000)
TEXT = base64.b64encode(CONTENT).decode()
ENCODINGS = {
    "inline": lambda: ("application/soap+xml", submit(payload(CONTENT))),
    "inline, action parameter": lambda: (
        'application/soap+xml; charset=UTF-8; action="http://eu.domibus.wsplugin/WebServicePluginInterface/submitMessage"',
        submit(payload(CONTENT)),
    ),
    "lines of 76 characters": lambda: ("application/soap+xml", submit(payload(value="\r\n".join(re.findall(".{1,76}", TEXT))))),
    "blanks and tabs": lambda: ("application/soap+xml", submit(payload(value="\n\t " + TEXT[:3] + " " + TEXT[3:] + " \n"))),
    "characters of no base64": lambda: ("application/soap+xml", submit(payload(value=f"*{TEXT[:50]}-_{TEXT[50:]}"))),
    "without padding": lambda: ("application/soap+xml", submit(payload(value=TEXT.rstrip("=")))),
    "CDATA": lambda: ("application/soap+xml", submit(payload(value=f"<![CDATA[{TEXT}]]>"))),
    "UTF-16": lambda: ("application/soap+xml; charset=utf-16", submit(payload(CONTENT)).decode().encode("utf-16")),
    "MTOM": lambda: related(submit(payload(value=include("a1"))), ("<a1>", CONTENT)),
    "MTOM, encoded cid": lambda: related(submit(payload(value=include("http%3A%2F%2Fx%2Fa%201"))), ("<http://x/a 1>", CONTENT)),
    "MTOM, attachment before the envelope": lambda: related(
        submit(payload(value=include("a1"))), ("<a1>", CONTENT), first=False
    ),
    "MTOM, attachment in base64": lambda: related(
        submit(payload(value=include("a1"))), ("<a1>", base64.encodebytes(CONTENT)), encoding="base64"
    ),
    "MTOM, text/xml root": lambda: related(submit(payload(value=include("a1"))), ("<a1>", CONTENT), root_type="text/xml"),
    "attachment named in the text": lambda: related(
        submit(payload(value="cid:a1")), ("a1", CONTENT), root_type="application/soap+xml"
    ),
    "bodyload": lambda: (
        "application/soap+xml",
        submit(payload(CONTENT, id=None, kind="bodyload"), parts=PART.replace(' href="cid:message"', "")),
    ),
    "payload id in other case": lambda: ("application/soap+xml", submit(payload(CONTENT, id="CID:Message"))),
    "other prefixes, default namespaces": lambda: (
        "application/soap+xml",
        envelope(
            f'<q0:submitRequest xmlns:q0="{PLUGIN}">{payload(CONTENT)}</q0:submitRequest>',
            messaging().replace("xmlns:eb=", "xmlns=").replace("eb:", ""), prefix="SOAP-ENV",
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("how", ENCODINGS)
async def test_encodings_of_a_payload(portal, lv, how):
    content_type, octets = ENCODINGS[how]()
    status, _, answer = await portal.post(octets, content_type=content_type)
    assert status == 200, answer
    [view] = await stored(lv)
    assert await contents(lv, view) == [CONTENT]


async def test_payloads_are_sent_in_the_order_of_the_header(portal, lv):
    parts = "".join(PART.replace("cid:message", f"cid:{name}") for name in ("a", "b", "c"))
    body = submit(payload(b"C", id="cid:c"), payload(value=include("x")), payload(b"A", id="cid:a"), parts=parts)
    body = body.replace(b'payloadId="cid:message"', b'payloadId="cid:b"')
    content_type, octets = related(body, ("<x>", b"B"))
    status, _, answer = await portal.post(octets, content_type=content_type)
    assert status == 200, answer
    [view] = await stored(lv)
    assert [part.cid for part in view.parts] == ["a", "b", "c"]
    assert await contents(lv, view) == [b"A", b"B", b"C"]


async def test_a_message_without_payloads(portal, lv):
    body = envelope(f'<w:submitRequest xmlns:w="{PLUGIN}"/>', submit(parts=None).decode().split("<s:Header>")[1].split("</s:Header>")[0])
    status, _, answer = await portal.post(body)
    assert status == 200, answer
    assert (await stored(lv))[0].parts == ()


@pytest.mark.parametrize(("given", "sent"), [
    ("", None), ("<eb:ConversationId/>", ""), ("<eb:ConversationId> c2 </eb:ConversationId>", "c2"),
])  # fmt: skip
async def test_conversation_ids(portal, lv, given, sent):
    status, _, answer = await portal.post(submit(conversation=given))
    assert status == 200, answer
    [view] = await stored(lv)
    assert view.conversation_id == sent if sent is not None else len(view.conversation_id) > 20


async def test_the_mime_type_comes_from_the_property_then_the_attribute_then_is_text_xml(portal, lv):
    bare = '<eb:PartInfo href="cid:{}"/>'
    parts = bare.format("a") + bare.format("b") + PART.replace("cid:message", "cid:c")
    status, _, answer = await portal.post(submit(
        payload(b"1", id="cid:a", content_type="application/pdf"), payload(b"2", id="cid:b", content_type=None),
        payload(b"3", id="cid:c", content_type="text/plain"), parts=parts,
    ))  # fmt: skip
    assert status == 200, answer
    assert [p.mime_type for p in (await stored(lv))[0].parts] == ["application/pdf", "text/xml", "application/x-ebrs+xml"]


async def test_message_ids_differ_by_case(portal, lv):
    for id in ("m@x", "M@x"):
        assert (await portal.post(submit(info=message_id(id))))[0] == 200
    status, _, octets = await portal.post(operation("statusRequest", "<messageID>m@X</messageID>"))
    assert status == 200 and b"NOT_FOUND" in octets
    await stored(lv, 2)


# -- what is refused, and how ---------------------------------------------------------

TEN_PARTS = "<eb:PartInfo href='cid:x'><eb:PartProperties/></eb:PartInfo>"
FAULTS = {
    "payload without id": (submit(payload(id=None)), ("Invalid request", "WS_PLUGIN_0005", "Attribute 'payloadId' of the 'payload' element must not be empty")),
    "bodyload with id": (submit(payload(kind="bodyload")), ("Invalid request", "WS_PLUGIN_0005", "Attribute 'payloadId' must not appear on element 'bodyload'")),
    "empty part properties": (submit(parts=TEN_PARTS), ("Invalid request", "WS_PLUGIN_0005", "PartProperties should not be empty.")),
    "no payload": (submit(payload(id="cid:other")), ("No Payload or Bodyload found for PartInfo with href: cid:message", "WS_PLUGIN_0001", "cid:message")),
    "only a bodyload": (submit(payload(id=None, kind="bodyload")), ("No payload found for PartInfo with href: cid:message", "WS_PLUGIN_0005", "cid:message")),
    "a file of ours": (
        submit(parts='<eb:PartInfo href="cid:message"><eb:PartProperties><eb:Property name="FilePath">file:///etc/passwd</eb:Property></eb:PartProperties></eb:PartInfo>'),
        ("Invalid filepath property", "WS_PLUGIN_0005", "file:///etc/passwd"),
    ),
    "unknown receiver": (submit(to="AP_XX_01"), ("Message submission failed", "EBMS:0003", "ValueInconsistent detail: Receiver party could not be found for the value AP_XX_01. No matching party found")),
    "unknown sender": (submit(sender="AP_XX_01"), ("Message submission failed", "EBMS:0003", "ValueInconsistent detail: Sender party could not be found for the value  AP_XX_01. No matching party found")),
    "unknown service": (submit(service="Nothing"), ("Message submission failed", "EBMS:0001", "ValueNotRecognized detail: No matching service found for type [urn:oasis:names:tc:ebcore:ebrs:ebms:binding:1.0] and value [Nothing]")),
    "unknown action": (submit(action="Nothing"), ("Message submission failed", "EBMS:0001", "ValueNotRecognized detail: No matching action found [Nothing]")),
    "no action": (submit(action=""), ("Message submission failed", "EBMS:0009", "InvalidHeader detail: Mandatory field Action is not provided.")),
    "long id": (submit(info=message_id("x" * 256)), ("Invalid Message Id. ", "WS_PLUGIN:0007", f"Value of messageId [{'x' * 256}] is too long (over 255 characters).")),
    "retrieve, empty id": (operation("retrieveMessageRequest", "<messageID> </messageID>"), ("Message ID is empty", "WS_PLUGIN:0007", "MessageId is empty")),
    "retrieve, unknown id": (operation("retrieveMessageRequest", "<messageID>x@y</messageID>"), ("Message not found, id [x@y]", "WS_PLUGIN:0009", "No message with id [x@y] found")),
    "mark, empty id": (operation("markMessageAsDownloadedRequest", "<messageID/>"), ("Message ID is empty", "WS_PLUGIN:0007", "Message ID is empty")),
    "mark, unknown id": (operation("markMessageAsDownloadedRequest", "<messageID>x@y</messageID>"), ("Message not found, id [x@y]", "WS_PLUGIN:0009", "No message with id [x@y] found")),
    "status, empty id": (operation("statusRequest", ""), ("Message ID is empty", "WS_PLUGIN:0007", "MessageId is empty")),
    "status, no role": (operation("statusRequestWithAccessPointRole", "<messageID>x@y</messageID>"), ("Access point role is invalid", "WS_PLUGIN:0007", "Access point role is invalid")),
    "errors, unknown id": (operation("getErrorsRequest", "<messageID>x@y</messageID>"), ("Message not found, id [x@y]", "WS_PLUGIN:0009", "No message with id [x@y] found")),
    "rePush, not failed": (operation("rePushFailedMessagesRequest", "<messageID>x@y</messageID>"), ("Invalid Message Id. ", "WS_PLUGIN:0007", "The message [x@y] is not in the list of push failed messages")),
    "rePush, too many": (operation("rePushFailedMessagesRequest", "<messageID>x@y</messageID>" * 101), ("Invalid argument", "WS_PLUGIN:0007", "Too many messages. the limit is [wsplugin.messages.repush.list.max]:100. Actual is: 101")),
    "unknown operation": (operation("launch"), ("There is no operation launch", None, None)),
    "operation of the other interface": (operation("statusRequest", "<messageID>x</messageID>", namespace=OLD), ("There is no operation statusRequest", None, None)),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
async def test_faults(portal, lv, case):
    request, expected = FAULTS[case]
    status, kind, octets = await portal.post(request)
    assert (status, kind) == (500, "application/soap+xml;charset=UTF-8")
    assert fault_of(octets) == expected
    await stored(lv, 0)


async def test_an_id_that_is_known_is_refused_even_with_the_same_content(portal, lv):
    assert (await portal.post(submit(info=message_id("m@x"))))[0] == 200
    expected = ("Message submission failed", "EBMS:0004", "Message with id [m@x] and role SENDING already exists. Message identifiers must be unique")
    for content in (b"<query/>", b"<other/>"):
        status, _, octets = await portal.post(submit(payload(content), info=message_id("m@x")))
        assert status == 500 and fault_of(octets) == expected
    await stored(lv, 1)


BROKEN = {
    "nothing": b"", "no XML": b"hello", "half": submit()[:200], "SOAP 1.1": submit().replace(b"2003/05/soap-envelope", b"2001/12/soap-envelope"),
    "empty body": envelope(""), "no body": envelope("x").replace(b"<s:Body>x</s:Body>", b""),
    "doctype": b"<!DOCTYPE s:Envelope>" + submit(),
    "entity": b'<!DOCTYPE s [<!ENTITY a SYSTEM "file:///etc/passwd">]>' + submit(payload(value="&a;")),
    "bomb": b'<!DOCTYPE s [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;">]>' + submit(payload(value="&b;")),
    "processing instruction": b"<?go now?>" + submit(),
    "deep": envelope("<a>" * 100 + "</a>" * 100), "many elements": envelope("<x>" + "<a/>" * 10_000 + "</x>"),
    "much text": envelope("<a>" + "x" * 2_000_000 + "</a>"), "long name": envelope(f"<{'a' * 2_000_000}/>"),
    "long comment": envelope(f"<a/><!--{'x' * 3_000_000}-->"), "long attribute": envelope(f'<a b="{"x" * 2_000_000}"/>'),
    "not base64": submit(payload(value="A")), "element in a value": submit(payload(value="<a/>QUJD")),
    "missing attachment": submit(payload(value=include("nobody"))), "two includes": submit(payload(value=include("a") + include("b"))),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
async def test_broken_envelopes(portal, lv, case):
    status, _, octets = await portal.post(BROKEN[case])
    assert status == 500 and fault_of(octets)[0]
    assert b"passwd" not in octets and b"aaaaaaaaaaaa" not in octets
    await stored(lv, 0)


@pytest.mark.parametrize("cut", [1, 30, 200, -40, -3])
async def test_a_multipart_that_ends_early(portal, lv, cut):
    content_type, octets = related(submit(payload(value=include("a1"))), ("<a1>", CONTENT))
    status, _, answer = await portal.post(octets[:cut], content_type=content_type)
    assert status == 500 and fault_of(answer)[0]
    await stored(lv, 0)


@pytest.mark.parametrize("content_type", ["", "text/plain", "application/json", "multipart/form-data; boundary=b"])
async def test_other_content_is_not_read(portal, content_type):
    assert (await portal.post(submit(), content_type=content_type or "x"))[0] == 415


# -- who may ------------------------------------------------------------------------


async def test_without_a_password_nothing_is_done(site, lv):
    portal = await site.user()
    for login, password in (("portal", "wrong"), ("nobody", portal.password), ("", ""), ("portal", "")):
        stranger = type(portal)(site, login, password)
        for request in (submit(), operation("listPendingMessagesRequest"), b"rubbish"):
            status, _, octets = await stranger.post(request)
            assert status == 500 and fault_of(octets)[0] == door.UNAUTHENTICATED
    await stored(lv, 0)


async def test_two_plugin_users_do_not_see_each_other(site, lv):
    mine, other = await site.user("mine", final_recipients=("C4",)), await site.user("other", final_recipients=("C9",))
    await lv.give(lv.peer.message())
    [id] = ids_of((await mine.post(operation("listPendingMessagesRequest")))[2])
    assert ids_of((await other.post(operation("listPendingMessagesRequest", "<finalRecipient>C4</finalRecipient>")))[2]) == []
    asked = f"<messageID>{id}</messageID>"
    for name in ("retrieveMessageRequest", "markMessageAsDownloadedRequest", "getErrorsRequest"):
        assert fault_of((await other.post(operation(name, asked)))[2]) == (f"Message not found, id [{id}]", "WS_PLUGIN:0009", f"No message with id [{id}] found")
    assert b"NOT_FOUND" in (await other.post(operation("statusRequest", asked)))[2]
    assert b"RECEIVED" in (await mine.post(operation("statusRequest", asked)))[2]


async def test_a_client_has_so_many_requests_under_way(site, portal, lv):
    """One client cannot take every place; whoever is refused is told when to come again."""
    gate, waiting = asyncio.Event(), 0

    async def slow():
        nonlocal waiting
        whole = submit()
        yield whole[:100]
        waiting += 1
        await gate.wait()
        yield whole[100:]

    async with asyncio.TaskGroup() as group:
        running = [group.create_task(portal.post(slow())) for _ in range(16)]
        while waiting < 16:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.5)  # until what was sent has been read
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{site.url}/services/wsplugin", data=submit(), headers={"Authorization": portal.authorization,
                         "Content-Type": "application/soap+xml"}) as answer,
        ):
            assert (answer.status, answer.headers.get("Retry-After")) == (503, "1")
            assert fault_of(await answer.read())[0] == "This client has too many requests under way"
        other = await site.user("other")
        assert (await other.post(submit()))[0] == 200
        gate.set()
    assert [done.result()[0] for done in running] == [200] * 16
    assert (await portal.post(submit()))[0] == 200


async def test_a_plugin_user_sends_only_in_its_own_name(site, lv):
    wrong, right = await site.user("wrong", original_senders=("C2",)), await site.user("right", original_senders=("C1",))
    status, _, octets = await wrong.post(submit())
    assert status == 500 and fault_of(octets)[:2] == ("Message submission failed", "WS_PLUGIN:0002")
    assert (await right.post(submit()))[0] == 200
    await stored(lv, 1)


# -- downloading ----------------------------------------------------------------------


async def test_of_many_downloads_at_once_one_gets_the_message(portal, lv):
    await lv.give(lv.peer.message([("application/x-ebrs+xml", os.urandom(300_000))]))
    [id] = ids_of((await portal.post(operation("listPendingMessagesRequest")))[2])
    answers = await asyncio.gather(*(portal.post(operation("retrieveMessageRequest", f"<messageID>{id}</messageID>")) for _ in range(8)))
    assert [status for status, _, _ in answers].count(200) == 1
    for status, _, octets in answers:
        if status != 200:
            assert fault_of(octets)[0] in (f"An attempt was made to download message [{id}] multiple times", f"Message not found, id [{id}]")


async def test_an_answer_that_was_cut_off_gives_the_message_back(portal, site, lv):
    await lv.give(lv.peer.message([("application/x-ebrs+xml", os.urandom(30 << 20))], compress=False))
    [id] = ids_of((await portal.post(operation("listPendingMessagesRequest")))[2])
    request = operation("retrieveMessageRequest", f"<messageID>{id}</messageID>")
    host, port = site.url.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port), limit=1 << 16)
    writer.write(
        f"POST /services/wsplugin HTTP/1.1\r\nHost: x\r\nAuthorization: {portal.authorization}\r\nContent-Type: application/soap+xml\r\n"
        f"Content-Length: {len(request)}\r\n\r\n".encode() + request
    )
    assert (await reader.readline()).startswith(b"HTTP/1.1 200")
    writer.transport.abort()
    deadline = asyncio.get_running_loop().time() + 60
    while True:
        status, _, octets = await portal.post(request)
        if status == 200:
            break
        assert asyncio.get_running_loop().time() < deadline, octets
        await asyncio.sleep(0.1)
    assert ids_of((await portal.post(operation("listPendingMessagesRequest")))[2]) == []


async def test_listing_is_bounded_and_oldest_first(portal, lv):
    ids = []
    for _ in range(4):
        sent = lv.peer.message()
        await lv.give(sent)
        ids.append(sent.message.message_id)
    assert ids_of((await portal.post(operation("listPendingMessagesRequest")))[2]) == ids
    assert ids_of((await portal.post(operation("listPendingMessagesRequest", f"<messageId>{ids[2]}</messageId>")))[2]) == [ids[2]]
    later = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    for element, found in (("receivedFrom", []), ("receivedTo", ids)):
        assert ids_of((await portal.post(operation("listPendingMessagesRequest", f"<{element}>{later}</{element}>")))[2]) == found
    assert (await portal.post(operation("listPendingMessagesRequest", "<receivedFrom>yesterday</receivedFrom>")))[0] == 500


# -- the contract -----------------------------------------------------------------------


@pytest.mark.parametrize(("path", "word"), [("/services/wsplugin", b"WEBSERVICEPLUGIN_PORT"), ("/domibus/services/backend", b"BackendService_1_1")])
async def test_the_wsdl_is_served_to_everybody(site, path, word):
    """Generated clients read it when they start, without a password."""
    async with aiohttp.ClientSession() as session:
        for query in ("?wsdl", "?WSDL"):
            async with session.get(site.url + path + query) as answer:
                text = await answer.read()
                assert answer.status == 200 and word in text and (site.url + path).encode() in text
        async with session.get(site.url + path) as answer:
            assert (answer.status, answer.headers["Allow"]) == (405, "POST")
        async with session.delete(site.url + path) as answer:
            assert answer.status == 405
