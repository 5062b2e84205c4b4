"""What partners' servers answer when we send, and what the gateway makes of it.

Whatever the HTTP status, a signal that can be read decides, and only an authentic one; without
one the message is tried again, with words that say what came instead.
"""

import datetime
import re

import pytest

from gateway.as4 import ns
from gateway.as4.header import write_messaging
from gateway.as4.outbound import secure_signal
from gateway.as4.profiles import PROFILES
from gateway.as4.signals import receipt_for
from gateway.as4.units import Error, SignalError
from tests.interop.foreign import foreign
from tests.interop.inside import inside  # noqa: F401 - the fixture lv
from tests.security.attacks import _stranger

SOAP = "application/soap+xml; charset=UTF-8"
NOW = datetime.datetime.now(datetime.UTC)


def receipt(lv, content_type, body) -> bytes:
    message, _, references = lv.peer.receive(content_type, body)
    return lv.peer.receipt_for(message, references)


def answered(status=200, content_type=SOAP, change=lambda octets: octets):
    """A good receipt, in another wrapping."""
    return lambda lv, *sent: (status, content_type, change(receipt(lv, *sent)))


def bare(status, content_type=None, octets=b""):
    return lambda lv, *sent: (status, content_type, octets)


def error(status=200, *, signed=True, change=lambda octets: octets, **fields):
    """An error signal of the peer about what was sent."""
    def answer(lv, content_type, body):
        message, _, _ = lv.peer.receive(content_type, body)
        values = {"code": "EBMS:0004", "severity": "failure", "ref_to_message_in_error": message.message_id} | fields
        about = values.pop("about", message.message_id)
        unit = Error("e-1@peer.example", NOW, about, (SignalError(**values),))
        key = lv.peer.keys.signing_key if signed else None
        octets = secure_signal(unit, profile=PROFILES[lv.peer.profile], key=key, token="bst", entropy=bytes)
        return status, SOAP, change(octets)
    return answer


def resigned(change):
    """A receipt whose text was changed before it was signed."""
    def answer(lv, content_type, body):
        message, _, references = lv.peer.receive(content_type, body)
        unit = receipt_for(references, ref_to=message.message_id, message_id="r-1@peer.example", now=NOW)
        text = write_messaging(unit, "m-1")

        def template(envelope: str) -> str:
            changed = change(re.sub("<eb:Messaging .*</eb:Messaging>", lambda _: text, envelope, flags=re.S))
            return changed

        return 200, SOAP, foreign(lv.peer, [], template=template)[0].envelope
    return answer


def multipart(lv, *sent):
    octets = receipt(lv, *sent)
    return 200, 'multipart/related; type="application/soap+xml"; boundary="b"', (
        b"\r\n--b\r\nContent-Type: application/soap+xml; charset=UTF-8\r\n\r\n" + octets + b"\r\n--b--\r\n")


def another(lv, *sent):
    """A receipt for something else that was sent."""
    _, _, references = lv.peer.receive(*sent)
    return 200, SOAP, lv.peer.signal(receipt_for(references, ref_to="other@lv.example", message_id="r@x", now=NOW))


def stranger(lv, *sent):
    message, _, references = lv.peer.receive(*sent)
    unit = receipt_for(references, ref_to=message.message_id, message_id="r@x", now=NOW)
    return 200, SOAP, secure_signal(unit, profile=PROFILES[lv.peer.profile], key=_stranger().signing_key, token="bst", entropy=bytes)


def fewer(lv, *sent):
    message, _, references = lv.peer.receive(*sent)
    return 200, SOAP, lv.peer.signal(receipt_for(references[:2], ref_to=message.message_id, message_id="r@x", now=NOW))


def swap(old: str, new: str):
    def change(text: str) -> str:
        assert old in text, old
        return text.replace(old, new)
    return change


def wrapped_digests(text: str) -> str:
    """DigestValue in lines, as Java writes base64 longer than a line."""
    def wrap(found):
        return f"<ds:DigestValue>\n{found[1][:20]}&#13;\n{found[1][20:]}\n</ds:DigestValue>"
    head, rest = text.split("<eb:Receipt>")
    return head + "<eb:Receipt>" + re.sub("<ds:DigestValue>([^<]*)</ds:DigestValue>", wrap, rest)


def fault(namespace: str, content: str) -> bytes:
    return f'<s:Envelope xmlns:s="{namespace}"><s:Body><s:Fault>{content}</s:Fault></s:Body></s:Envelope>'.encode()


FAULT_12 = fault(ns.S12, "<s:Code><s:Value>s:Receiver</s:Value></s:Code><s:Reason><s:Text xml:lang='en'>no such service</s:Text></s:Reason>")
FAULT_11 = fault(ns.S11, "<faultcode>s:Client</faultcode><faultstring>unexpected element</faultstring>")
WITH_FAULT = (b"></S12:Body>", b"><S12:Fault><S12:Code><S12:Value>S12:Client</S12:Value></S12:Code><S12:Reason>"
              b'<S12:Text xml:lang="en">x</S12:Text></S12:Reason></S12:Fault></S12:Body>')
PHASE4_MARKER = '<phase4 xmlns="urn:fdc:com.helger.phase4:ns:info" version="4"></phase4></eb:Receipt>'
WARNING = '</eb:Receipt><eb:Error errorCode="EBMS:0002" severity="Warning"></eb:Error>'
USELESS = ('<xenc:EncryptedKey xmlns:xenc="http://www.w3.org/2001/04/xmlenc#" Id="EK"><xenc:EncryptionMethod Algorithm="urn:x"/>'
           "<xenc:CipherData><xenc:CipherValue>AAAA</xenc:CipherValue></xenc:CipherData></xenc:EncryptedKey>")
DONE, AGAIN, FAILED = "ACKNOWLEDGED", "WAITING_FOR_RETRY", "FAILED"

#: Name → (answer, state of the message, code, words of the detail).
ANSWERS = {
    # receipts, however they come
    "receipt-with-202": (answered(202), DONE, None, ""),
    "receipt-with-500": (answered(500), DONE, None, ""),
    "receipt-with-400": (answered(400), DONE, None, ""),
    "receipt-as-multipart": (multipart, DONE, None, ""),
    "receipt-as-text-xml": (answered(content_type="text/xml;charset=utf-8"), DONE, None, ""),
    "receipt-without-type": (answered(content_type=None), DONE, None, ""),
    "receipt-with-byte-order-mark": (answered(change=lambda o: b"\xef\xbb\xbf" + o), DONE, None, ""),
    "receipt-with-xml-declaration": (answered(change=lambda o: b"<?xml version='1.0' encoding='UTF-8'?>\n" + o), DONE, None, ""),
    "receipt-with-marker-of-phase4": (resigned(swap("</eb:Receipt>", PHASE4_MARKER)), DONE, None, ""),
    "receipt-with-wrapped-digests": (resigned(wrapped_digests), DONE, None, ""),
    "receipt-with-other-prefixes": (resigned(lambda t: t.replace("ebbp:", "ns9:").replace("xmlns:ebbp", "xmlns:ns9")), DONE, None, ""),
    "receipt-with-warning": (resigned(swap("</eb:Receipt>", WARNING)), DONE, None, ""),
    "receipt-with-useless-key": (answered(change=lambda o: o.replace(b"<wsse:BinarySecurityToken", USELESS.encode() + b"<wsse:BinarySecurityToken", 1)), DONE, None, ""),
    "receipt-time-to-the-second": (resigned(lambda t: re.sub(r"(<eb:Timestamp>[^.<]*)\.\d+Z", r"\1Z", t)), DONE, None, ""),
    # receipts that prove nothing
    "receipt-unsigned": (answered(change=lambda o: re.sub(rb"<wsse:Security .*</wsse:Security>", b"", o)), AGAIN, "EBMS:0302", "not signed"),
    "receipt-by-a-stranger": (stranger, AGAIN, "EBMS:0302", "certificate"),
    "receipt-for-another-message": (another, AGAIN, "EBMS:0302", "another message"),
    "receipt-with-fewer-references": (fewer, AGAIN, "EBMS:0302", "references"),
    "receipt-without-reference-to-message": (resigned(lambda t: re.sub("<eb:RefToMessageId>.*?</eb:RefToMessageId>", "", t)), AGAIN, "EBMS:0302", "another message"),
    "receipt-empty": (resigned(lambda t: re.sub("<eb:Receipt>.*</eb:Receipt>", "<eb:Receipt/>", t)), AGAIN, "EBMS:0302", "no non-repudiation"),
    "receipt-with-copy-of-the-message": (resigned(lambda t: re.sub(
        "<eb:Receipt>.*</eb:Receipt>", '<eb:Receipt><w:OriginalUserMessage xmlns:w="urn:fdc:com.helger.phase4:ns:wrapper"/></eb:Receipt>', t)),
        AGAIN, "EBMS:0302", "no non-repudiation"),
    "receipt-without-must-understand": (resigned(lambda t: re.sub(r'(<eb:Messaging[^>]*) S12:mustUnderstand="true"', r"\1", t)), AGAIN, "EBMS:0302", "must be understood"),
    "receipt-compressed-by-http": (lambda lv, *s: (200, SOAP, b"\x1f\x8b\x08"), AGAIN, "EBMS:0302", "not well-formed"),
    # errors, however they come
    "error-final": (error(code="EBMS:0010", detail="no leg"), FAILED, "EBMS:0010", "no leg"),
    "error-with-500": (error(500, code="EBMS:0003"), FAILED, "EBMS:0003", ""),
    "error-with-soap-fault": (error(500, code="EBMS:0001", signed=False, change=lambda o: o.replace(*WITH_FAULT)), AGAIN, "EBMS:0001", "unverified"),
    "error-temporary": (error(code="EBMS:0202"), AGAIN, "EBMS:0202", ""),
    "error-unsigned": (error(code="EBMS:0010", signed=False), AGAIN, "EBMS:0010", "unverified"),
    "error-without-must-understand": (error(code="EBMS:0010", signed=False, change=lambda o: o.replace(b' S12:mustUnderstand="true"', b"")), AGAIN, "EBMS:0010", "unverified"),
    "error-severity-in-capitals": (error(code="EBMS:0003", severity="Failure"), FAILED, "EBMS:0003", ""),
    "error-code-decides-over-severity": (error(code="EBMS:0003", severity="warning"), FAILED, "EBMS:0003", ""),
    "error-code-without-prefix": (error(code="0103"), FAILED, "EBMS:0103", ""),
    "error-0102-for-every-crypto-problem": (error(code="EBMS:0102", description="Security error"), FAILED, "EBMS:0102", "Security error"),
    "error-duplicate-of-phase4": (error(code="EBMS:4001", short_description="DuplicateDetected"), AGAIN, "EBMS:4001", "DuplicateDetected"),
    "error-without-ref-to-message-id": (error(code="EBMS:0010", about=None), FAILED, "EBMS:0010", ""),
    "error-without-any-reference": (error(code="EBMS:0010", about=None, ref_to_message_in_error=None), FAILED, "EBMS:0010", ""),
    "error-about-another-message": (error(code="EBMS:0010", about="other@lv.example"), AGAIN, "EBMS:0302", "another message"),
    # no AS4 at all
    "empty-200": (bare(200), AGAIN, "EBMS:0005", "HTTP 200 with an empty body"),
    "empty-202": (bare(202), AGAIN, "EBMS:0005", "HTTP 202 with an empty body"),
    "empty-204": (bare(204), AGAIN, "EBMS:0005", "HTTP 204 with an empty body"),
    "soap-fault-alone": (bare(500, SOAP, FAULT_12), AGAIN, "EBMS:0005", "SOAP Fault without ebMS header: Receiver: no such service"),
    "soap-1.1-fault": (bare(500, "text/xml", FAULT_11), AGAIN, "EBMS:0005", "SOAP Fault without ebMS header: Client: unexpected element"),
    "plain-text-400": (bare(400, "text/plain", b"originalSender is\nmissing"), AGAIN, "EBMS:0005", "saying 'originalSender is missing'"),
    "html-404": (bare(404, "text/html", b"<html><head><title>404 Not Found</title></head></html>"), AGAIN, "EBMS:0005", "saying '404 Not Found'"),
    "html-200": (bare(200, "text/html; charset=x", b"<html><form>Log in</form></html>"), AGAIN, "EBMS:0005", "without an AS4 answer"),
    "redirect": (bare(302, "text/html", b"moved"), AGAIN, "EBMS:0005", "HTTP 302"),
    "unavailable": (bare(503), AGAIN, "EBMS:0005", "HTTP 503"),
    "too-large": (bare(413, "text/html", b"<title>Request Entity Too Large</title>"), AGAIN, "EBMS:0005", "HTTP 413"),
    "hung-up": (lambda *_: None, AGAIN, "EBMS:0005", "closed the connection"),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_answers(lv, name):
    answer, state, code, words = ANSWERS[name]
    lv.listener.answer = lambda *sent: answer(lv, *sent)
    submitted = await lv.submit()
    await lv.send_due()
    seen = await lv.view(submitted)
    assert (seen.state, seen.error_code) == (state, code), seen.error_detail
    assert words in (seen.error_detail or "")


async def test_one_good_answer_after_bad_ones(lv):
    """A receipt for any attempt settles the message: every attempt signs the same octets."""
    first = []

    def once(*sent):
        first.append(lv.receipting(*sent))
        return 204, None, b""

    lv.listener.answer = once
    submitted = await lv.submit()
    await lv.send_due()
    assert (await lv.view(submitted)).state == AGAIN
    answer = await lv.post(SOAP, first[0][2])
    assert answer.status == 204 and (await lv.view(submitted)).state == DONE
