"""The explanation catalogue: complete, in both languages, and the right entry for what really happens."""

import ast
import errno
import re
import ssl
from pathlib import Path

import pytest

from gateway.errors import EBMS_ERRORS
from gateway.operate import explanations
from gateway.operate.explanations import LANGUAGES, catalogue, explain, explain_attempt, look_up
from gateway.transport import failures
from gateway.transport.exchange import Exchange, Timeouts

ROOT = Path(explanations.__file__).parents[1]
LATVIAN = set("āčēģīķļņšūž")


def test_keys_are_unique_and_texts_are_there():
    keys = [entry.key for entry in catalogue()]
    assert len(keys) == len(set(keys)) >= 60
    for entry in catalogue():
        for texts in (entry.en, entry.lv):
            assert all(text.endswith((".", ")")) and 15 < len(text) < 400 for text in texts), entry.key
        assert not set("".join(entry.en)) & LATVIAN and set("".join(entry.lv)) & LATVIAN, entry.key
        # Commands, codes and file keys are not translated.
        assert set(re.findall(r"`[^`]+`", "".join(entry.en))) == set(re.findall(r"`[^`]+`", "".join(entry.lv))), entry.key
        if entry.match:
            re.compile(entry.match)


def test_commands_in_the_texts_exist():
    from gateway.cli.main import VERBS

    named = {m for e in catalogue() for m in re.findall(r"`gateway (\w+)", " ".join((*e.en, *e.lv)))}
    assert named and named <= set(VERBS)


@pytest.mark.parametrize("on", ["sending", "partner", "receiving"])
def test_every_code_has_an_explanation(on):
    """The last entry of each side fits everything, so there is always one; the codes AS4 partners send have their own."""
    for code in (*EBMS_ERRORS, "EBMS:4001", "EBMS:9999", "nonsense", ""):
        assert explain(on, code, "x" * 10_000).what
    last = [entry for entry in catalogue() if entry.on == on][-1]
    assert not last.codes and last.match is None
    for code in ("EBMS:0001", "EBMS:0003", "EBMS:0007", "EBMS:0009", "EBMS:0010", "EBMS:0101", "EBMS:0102", "EBMS:0103", "EBMS:0303"):
        if on != "sending":
            assert explain(on, code).key != last.key


def test_no_entry_is_hidden_by_another():
    """For each entry there is a code and a detail that leads to it: the particular stand before the general."""
    for entry in catalogue():
        code = min(entry.codes, default="EBMS:0004")
        detail = _example(entry.match) if entry.match else ""
        assert explain(entry.on, code, detail).key == entry.key, (entry.key, detail)


def _example(pattern: str) -> str:
    """A text that the first alternative of a simple pattern fits."""
    text = re.sub(r"\(([^|()]*)(?:\|[^()]*)?\)", r"\1", pattern).split("|")[0]
    text = text.replace("\\d", "2").replace("\\b", " ")
    assert re.search(pattern, text, re.IGNORECASE), pattern
    return text


#: What the transport says of a failure → which explanation.
TRANSPORT = {
    **{f"host: {text}": "tls-untrusted" for number, text in failures.VERIFY_ERRORS.items() if number in (7, 18, 19, 20, 21)},
    **{f"host: {text}": "tls-expired" for number, text in failures.VERIFY_ERRORS.items() if number in (9, 10, 23, 26)},
    **{f"host: {text}": "tls-name" for number, text in failures.VERIFY_ERRORS.items() if number in (62, 64)},
    f"host: {failures.SYSTEM_ERRORS[errno.ECONNREFUSED]}": "connection-refused",
    f"host: {failures.SYSTEM_ERRORS[errno.EHOSTUNREACH]}": "no-route",
    f"host: {failures.SYSTEM_ERRORS[errno.ENETUNREACH]}": "no-route",
    f"host: {failures.SYSTEM_ERRORS[errno.ETIMEDOUT]}": "connect-timeout",
    f"host: {failures.SYSTEM_ERRORS[errno.ECONNRESET]}": "connection-broken",
    f"host: {failures.TLS_REASONS['TLSV13_ALERT_CERTIFICATE_REQUIRED']}": "tls-client-certificate",
    f"host: {failures.TLS_REASONS['TLSV1_ALERT_UNKNOWN_CA']}": "tls-client-certificate",
    f"host: {failures.TLS_REASONS['TLSV1_ALERT_PROTOCOL_VERSION']}": "tls-version",
    f"host: {failures.TLS_REASONS['SSLV3_ALERT_HANDSHAKE_FAILURE']}": "tls-version",
    f"host: {failures.TLS_REASONS['WRONG_VERSION_NUMBER']}": "not-tls",
    f"host: {failures.explain('host', ConnectionResetError())}": "tls",
    failures.explain("host", ssl.SSLError("something")): "connection",
    "host: the name cannot be resolved": "dns",
    "host: all connections to this partner are busy": "busy",
    "the endpoint of the agreement: plain http is not allowed": "egress",
    "10.1.1.1 is at an address that is private": "egress",
    "HTTP 200 with an empty body: no receipt came back": "empty-answer",
    "HTTP 503 with an empty body: no receipt came back": "http-gateway",
    "HTTP 404 without an AS4 answer (content type 'text/html'): a proxy or another program answered": "http-404",
    "HTTP 413 without an AS4 answer (content type 'text/html')": "http-too-large",
    "HTTP 302 without an AS4 answer (content type 'text/html')": "http-redirect",
    "HTTP 403 without an AS4 answer (content type 'text/html')": "http-auth",
    "HTTP 200 without an AS4 answer (content type 'text/html')": "not-as4",
    "HTTP 500: a SOAP Fault without ebMS header: Receiver: x": "soap-fault",
}


@pytest.mark.parametrize("detail", TRANSPORT)
def test_what_the_transport_says_is_explained(detail):
    assert explain("sending", "EBMS:0005", detail).key == TRANSPORT[detail]


@pytest.mark.parametrize(("phase", "key"), [("connect", "connect-timeout"), ("send", "send-timeout"), ("receipt", "answer-timeout")])
def test_timeouts_are_explained(phase, key):
    exchange = Exchange("host", 1, Timeouts())
    exchange._phase = phase
    assert explain("sending", "EBMS:0005", exchange._too_slow()).key == key


def test_every_failure_of_the_transport_has_its_own_words():
    """A text added to `failures` falls to the general entry only if somebody decides so, here."""
    general = {errno.EPIPE}
    for number, text in failures.SYSTEM_ERRORS.items():
        assert explain("sending", "EBMS:0005", f"host: {text}").key != "connection" or number in general
    for text in (*failures.VERIFY_ERRORS.values(), *failures.TLS_REASONS.values()):
        assert explain("sending", "EBMS:0005", f"host: {text}").key != "connection", text


def test_the_texts_of_send_failures_are_the_ones_in_the_source():
    """Patterns are looked for in words of ours; a word that changes would lose its explanation unnoticed."""
    said = "\n".join(
        "".join(v.value if isinstance(v, ast.Constant) else "…" for v in node.values) if isinstance(node, ast.JoinedStr) else node.value
        for path in (*(ROOT / "msh").glob("*.py"), *(ROOT / "transport").glob("*.py"), *(ROOT / "as4").rglob("*.py"), *(ROOT / "keys").glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))
    )
    said += "HTTP 404 405 410 401 403 407 413 429 500 502 503 504 HTTP 302"
    for entry in catalogue():
        if entry.on == "sending" and entry.match and not entry.match.startswith("HTTP"):
            assert re.search(entry.match, said, re.IGNORECASE), entry.key


@pytest.mark.parametrize(("code", "detail", "key"), [
    ("EBMS:0101", "FailedAuthentication; Sender [x] certificate is not valid or has been revoked", "their-certificate"),
    ("EBMS:0102", "FailedDecryption", "their-decryption"),
    ("EBMS:0103", "Security Error dispatching message", "their-policy"),
    ("EBMS:0001", "No matching Legs found among matched Processes:[..]. Leg mismatch details: ...", "their-agreement"),
    ("EBMS:0003", "No matching party found for type [..] and value [..]", "their-party"),
    ("EBMS:0003", "Sender party could not be found for the value  AP_LV_01", "their-party"),
    ("EBMS:0003", "Value of RefToMessageId is too long (over 255 characters)", "their-value"),
    ("EBMS:0010", "The initiator party's name [..] does not correspond to the access point's name [..]", "their-initiator"),
    ("EBMS:0010", "Property profiling for this exchange does not include a property named [x]", "their-property"),
    ("EBMS:0010", "Payload profiling for this exchange does not include a payload with CID: x", "their-payload"),
    ("EBMS:0010", "PMode could not be found. Are PModes configured in the database?", "their-agreement"),
    ("EBMS:0004", "Could not determine the domain", "their-other"),
    ("EBMS:0004", "Message with id [x] already exists. Message identifiers must be unique", "their-duplicate"),
    ("EBMS:4001", "DuplicateDetected", "their-duplicate"),
    ("EBMS:0009", "Messaging header is missing", "their-header"),
    ("EBMS:0011", "No Attachment found for cid x", "their-mime"),
    ("EBMS:0201", "Could not generate Receipt", "their-delivery"),
    ("EBMS:0303", "DecompressionFailure", "their-compression"),
])
def test_what_domibus_and_phase4_say_is_explained(code, detail, key):
    assert explain("partner", code, detail).key == key


def test_the_last_cause_is_explained_when_a_message_is_given_up():
    detail = "no receipt after 6 attempts; last: EBMS:0005 ee.example: nobody listens there (connection refused)"
    assert explain("sending", "EBMS:0301", detail).key == "connection-refused"
    assert explain_attempt("error", "EBMS:0301", "no receipt after 6 attempts; last: EBMS:0202 DeliveryFailure").key == "their-delivery"
    assert explain("sending", "EBMS:0301", "no receipt").key == "no-receipt"


def test_languages():
    seen = {explain("partner", "EBMS:0101", language=language) for language in LANGUAGES}
    assert len({(e.what, e.actor) for e in seen}) == 2 and {e.who for e in seen} == {"we"}


def test_look_up():
    assert [e.key for e, _ in look_up("0101")] == [e.key for e, _ in look_up("ebms:0101")] != []
    assert look_up("tls")[0][0].key == "tls" and len(look_up("tls")) > 5
    assert look_up("kvīts") and look_up("receipt")
    assert {entry.on for entry, _ in look_up("EBMS:0004")} == {"sending"} or look_up("EBMS:0004")
    assert look_up("EBMS:0202")[0][0].key == "their-delivery"
    assert look_up("no such thing anywhere") == look_up("") == look_up("EBMS:9999") == []


def test_what_a_partner_wrote_is_looked_at_and_never_repeated():
    hostile = "x" * 100_000 + "TLS certificate (has expired\x1b[31m"
    explanation = explain("partner", "EBMS:0004", hostile)
    assert explanation.key == "their-other" and "\x1b" not in explanation.what
