"""`gateway parties test` against a real peer and against servers that fail in every way."""

import asyncio
import contextlib
import json
import socket
import ssl
import sys
import threading

import pytest
from msgspec.structs import replace

from gateway import app
from gateway.as4 import ns
from gateway.as4.pmode import PModeSet
from gateway.cli.main import main
from gateway.errors import NotFound
from gateway.operate.ping import PAYLOAD, STAGES, legs_to, ping
from gateway.transport import client as transport
from gateway.transport.client import Timeouts
from tests.interop.inside import inside  # noqa: F401 - the fixture lv
from tests.interop.test_answers import another, answered, bare, error, fewer
from tests.serving import serving
from tests.unit.wire import Pki

TIMEOUTS = Timeouts(connect=20, idle=20, answer=20)


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    return Pki(tmp_path_factory.mktemp("pki"))


@contextlib.asynccontextmanager
async def trial(lv, timeouts=TIMEOUTS, change=lambda config: config, **changes):
    """The rooms of a test and its one leg; `change` to the configuration, `changes` to the partner."""
    config, pmodes = change(lv.gateway._rooms.config), lv.gateway._rooms.agreements.value.pmodes
    legs = tuple(
        replace(leg, to_party=replace(leg.to_party, **changes)) if leg.to_party.name == "AP_EE_01" else leg for leg in pmodes.legs)
    pmodes = replace(pmodes, legs=legs)
    rooms = app.trial(config, pmodes, timeouts=timeouts)
    try:
        [leg] = legs_to(pmodes, "AP_EE_01")
        yield rooms, leg
    finally:
        await rooms.client.close()
        rooms.cpu.close()


async def carried_out(lv, answer=None, timeouts=TIMEOUTS, language="en", **changes):
    if answer is not None:
        lv.listener.answer = lambda *sent: answer(lv, *sent)
    async with trial(lv, timeouts, **changes) as (rooms, leg):
        return await ping(rooms, leg, language=language)


@contextlib.asynccontextmanager
async def over_tls(lv, context):
    """The peer's listener once more, behind TLS: its URL."""
    async with serving(lv.listener.handle, tls=context) as place:
        yield f"https://{place}/as4"


async def test_there_and_back(lv):
    found = await carried_out(lv)
    assert (found.result, found.receipt, found.http_status, found.explanation, found.code) == ("ok", "verified", 200, None, None)
    assert [timing.stage for timing in found.stages] == list(STAGES)
    assert all(timing.ms > 0 and timing.error is None for timing in found.stages)
    assert found.signer == "CN=AP_EE_01" and found.tls is None
    # What the partner got: the test service, signed, encrypted and compressed as agreed, with something in it.
    message, contents, _ = lv.peer.receive(*lv.listener.received[-1])
    assert (message.service.value, message.action) == (ns.TEST_SERVICE, ns.TEST_ACTION)
    assert message.message_id == found.message_id and contents == [PAYLOAD]
    # Nothing of it is stored or tried again here.
    from gateway.store.api import MessageFilter

    assert await lv.store.messages(MessageFilter()) == []
    await lv.send_due()
    assert len(lv.listener.received) == 1


async def test_over_tls(lv, pki):
    async with over_tls(lv, pki.server_context()) as url:
        found = await carried_out(lv, endpoint=url, tls_ca=pki.ca.read_bytes())
    assert found.result == "ok" and found.tls.startswith("TLSv1.3 TLS_")


async def test_nobody_listens(lv):
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    found = await carried_out(lv, endpoint=f"http://127.0.0.1:{port}/as4")
    assert (found.result, found.code, found.explanation.key, found.explanation.who) == (
        "failed", "EBMS:0005", "connection-refused", "partner")
    assert found.stages[-1].stage == "connect" and found.stages[-1].error
    assert (found.receipt, found.http_status) == ("none", None)


async def test_no_such_name(lv, monkeypatch):
    async def unknown(*_):
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(transport, "look_up", unknown)
    found = await carried_out(lv, endpoint="https://ap.ee.invalid/as4")
    assert (found.result, found.explanation.key) == ("failed", "dns")


async def test_an_unknown_ca(lv, pki):
    async with over_tls(lv, pki.server_context()) as url:
        found = await carried_out(lv, endpoint=url)
    assert (found.result, found.explanation.key) == ("failed", "tls-untrusted")
    assert found.stages[-1].stage == "connect" and lv.listener.received == []


async def test_another_host_name(lv, pki):
    async with over_tls(lv, pki.server_context("elsewhere", hosts=("elsewhere.example",))) as url:
        found = await carried_out(lv, endpoint=url, tls_ca=pki.ca.read_bytes())
    assert found.explanation.key == "tls-name"


async def test_an_expired_server_certificate(lv, pki):
    async with over_tls(lv, pki.server_context("old", days=-1)) as url:
        found = await carried_out(lv, endpoint=url, tls_ca=pki.ca.read_bytes())
    assert (found.explanation.key, found.explanation.who) == ("tls-expired", "partner")


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_a_client_certificate_is_demanded(lv, pki, version):
    """OpenSSL's own server, for asyncio's closes without the alert that says why."""
    context = pki.server_context(client_ca=pki.ca, required=True)
    context.minimum_version = context.maximum_version = version
    with handshaking(context) as url:
        found = await carried_out(lv, endpoint=url, tls_ca=pki.ca.read_bytes())
    # With TLS 1.2 OpenSSL only says that the handshake failed; the text names the client certificate.
    expected = "tls-client-certificate" if version == ssl.TLSVersion.TLSv1_3 else "tls-version"
    assert found.result == "failed" and found.explanation.key == expected, found.detail
    assert "client certificate" in found.detail


async def test_our_client_certificate_is_refused(lv, pki, tmp_path):
    """One of another CA than the partner knows."""
    stranger = Pki(tmp_path)
    context = pki.server_context(client_ca=pki.ca, required=True)
    pair = stranger.pair("client", usage="client")

    def with_certificate(config):
        return replace(config, as4=replace(config.as4, client_tls=replace(config.as4.client_tls, certificate=pair, key=pair)))

    with handshaking(context) as url:
        found = await carried_out(lv, endpoint=url, tls_ca=pki.ca.read_bytes(), change=with_certificate)
    assert found.explanation.key == "tls-client-certificate" and found.explanation.who == "both", found.detail


@contextlib.contextmanager
def handshaking(context):
    """A server that only shakes hands, in threads: its URL."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        with contextlib.suppress(OSError):  # the listener is closed at the end
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=shake, args=(connection,), daemon=True).start()

    def shake(connection):
        with contextlib.suppress(OSError), context.wrap_socket(connection, server_side=True) as tls:
            tls.recv(1 << 16)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield f"https://127.0.0.1:{listener.getsockname()[1]}/as4"
    finally:
        listener.close()


async def test_no_tls_on_that_port(lv):
    found = await carried_out(lv, endpoint=lv.listener.url.replace("http:", "https:"))
    assert found.explanation.key == "not-tls", found.detail


@pytest.mark.parametrize(("answer", "key", "code"), [
    (bare(404, "text/html", b"<title>404</title>"), "http-404", "EBMS:0005"),
    (bare(200, "text/html", b"<title>Log in</title>"), "not-as4", "EBMS:0005"),
    (bare(502, "text/html", b"<title>Bad Gateway</title>"), "http-gateway", "EBMS:0005"),
    (bare(204), "empty-answer", "EBMS:0005"),
    (error(code="EBMS:0001", short_description="ValueNotRecognized"), "their-agreement", "EBMS:0001"),
    (error(code="EBMS:0003", detail="No matching party found for type [..] and value [..]"), "their-party", "EBMS:0003"),
    (error(code="EBMS:0004"), "their-other", "EBMS:0004"),
    (error(code="EBMS:0101"), "their-certificate", "EBMS:0101"),
    (error(code="EBMS:0102"), "their-decryption", "EBMS:0102"),
    (error(500, code="EBMS:0103", signed=False), "their-policy", "EBMS:0103"),
    (fewer, "receipt-mismatch", "EBMS:0302"),
    (another, "receipt-mismatch", "EBMS:0302"),
    (answered(change=lambda o: o.replace(b"ds:SignatureValue", b"ds:SignatureValua")), "receipt-mismatch", "EBMS:0302"),
    (lambda *_: None, "connection-broken", "EBMS:0005"),
], ids=lambda value: value if isinstance(value, str) and "-" in value else "")
async def test_answers_that_are_no_receipt(lv, answer, key, code):
    found = await carried_out(lv, answer)
    assert (found.result, found.code, found.explanation.key) == ("failed", code, key), found.detail
    assert found.receipt == ("refused" if code == "EBMS:0302" else "none")
    assert len(lv.listener.received) == 1


async def test_an_unsigned_receipt(lv):
    import re

    found = await carried_out(lv, answered(change=lambda o: re.sub(rb"<wsse:Security .*</wsse:Security>", b"", o)))
    assert (found.receipt, found.explanation.key) == ("refused", "receipt-unsigned")


async def test_a_receipt_of_somebody_else(lv):
    from tests.interop.test_answers import stranger

    found = await carried_out(lv, stranger)
    assert (found.receipt, found.explanation.key) == ("refused", "receipt-signer")


async def test_no_answer_in_time(lv):
    release = asyncio.Event()

    async def never(*_):
        await release.wait()
        return 204, None, b""

    lv.listener.answer = never
    try:
        found = await carried_out(lv, timeouts=Timeouts(connect=20, idle=20, answer=0.3), language="lv")
    finally:
        release.set()
    assert (found.result, found.explanation.key, found.stages[-1].stage) == ("timeout", "answer-timeout", "receipt")
    assert found.explanation.actor == "partneris"


async def test_an_expired_encryption_certificate_sends_nothing(lv):
    der = lv.authority.issue("AP_EE_01", lv.peer.keys.signing_private.public_key(), start=-10, days=5)
    found = await carried_out(lv, encryption=der)
    assert (found.result, found.explanation.key) == ("failed", "encryption-certificate")
    assert lv.listener.received == []


async def test_an_endpoint_we_may_not_connect_to(lv):
    found = await carried_out(lv, endpoint="https://169.254.169.254/as4")
    assert (found.result, found.explanation.key, found.explanation.who) == ("failed", "egress", "we"), found.detail


def test_who_is_meant(tmp_path):
    with pytest.raises(NotFound, match="known: none"):
        legs_to(PModeSet(), "AP_EE_01")
    with pytest.raises(NotFound, match="no agreement"):
        legs_to(PModeSet(), None)


async def test_our_own_party_is_no_partner(lv):
    pmodes = lv.gateway._rooms.agreements.value.pmodes
    with pytest.raises(NotFound, match="our own"):
        legs_to(pmodes, "AP_LV_01")
    with pytest.raises(NotFound, match="known: AP_EE_01"):
        legs_to(pmodes, "AP_XX_01")
    [leg] = legs_to(pmodes, None)
    assert leg.to_party.name == "AP_EE_01"
    pulled = replace(pmodes, legs=tuple(replace(leg, mep_binding=ns.BINDING_PULL) for leg in pmodes.legs))
    with pytest.raises(NotFound, match="no agreement to push"):
        legs_to(pulled, "AP_EE_01")


# -- the command ----------------------------------------------------------------------


async def gateway(*arguments: str, folder, **environ) -> tuple[int, str, str]:
    import os

    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", *arguments, "--config", str(folder / "gateway.toml"),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env={**os.environ, "LC_ALL": "C.UTF-8", **environ})
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def test_the_command(lv, tmp_path):
    folder = tmp_path / "lv"
    status, out, err = await gateway("parties", "test", "AP_EE_01", "--pmodes", str(folder / "pmodes"), folder=folder)
    assert status == 0, out + err
    assert out.startswith("✔ AP_EE_01  http://127.0.0.1:") and "receipt verified" in out
    assert [line.split()[0] for line in out.splitlines()[1 : 1 + len(STAGES)]] == list(STAGES)

    lv.listener.answer = lambda *_: (404, "text/html", b"<title>\x1b[31mgone</title>")
    status, out, err = await gateway("parties", "test", "--all", "--pmodes", str(folder / "pmodes"), "--json", folder=folder, LC_ALL="lv_LV.UTF-8")
    [found] = json.loads(out)
    assert status == 7 and (found["result"], found["explanation"]["key"]) == ("failed", "http-404")
    assert found["explanation"]["what"].startswith("Serveris atbild") and "\x1b" not in out
    assert {timing["stage"] for timing in found["stages"]} == set(STAGES)

    hold = asyncio.Event()

    async def silent(*_):
        await hold.wait()
        return 204, None, b""

    lv.listener.answer = silent
    status, out, err = await gateway("parties", "test", "AP_EE_01", "--pmodes", str(folder / "pmodes"), "--timeout", "1", folder=folder)
    hold.set()
    assert status == 8 and "who must act: the partner" in out

    status, out, err = await gateway("parties", "test", "AP_XX_01", "--pmodes", str(folder / "pmodes"), folder=folder)
    assert status == 5 and "known: AP_EE_01" in err and out == ""


@pytest.mark.parametrize("arguments", [(), ("AP_EE_01", "--all")])
def test_the_command_wants_somebody(arguments, capsys):
    assert run("parties", "test", *arguments) == 2
    assert "--all" in capsys.readouterr().err


def test_explain(capsys):
    assert run("explain", "0102", "--json") == 0
    assert {one["key"] for one in json.loads(capsys.readouterr().out)} >= {"their-decryption", "refused-decryption"}
    assert run("explain", "kvīts", "--lang", "lv") == 0
    assert "jārīkojas: " in capsys.readouterr().out
    assert run("explain", "zzzz") == 5
    assert "nothing is known" in capsys.readouterr().err


def run(*arguments: str) -> int:
    """The command in this process: its exit status."""
    with pytest.raises(SystemExit) as end:
        main(list(arguments))
    return end.value.code
