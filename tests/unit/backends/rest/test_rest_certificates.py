"""The REST door over a real TLS listener: client certificates, tokens of an issuer, and both together."""

import contextlib
import json
import socket
import ssl

import httpx
import pytest
from aiohttp import web
from msgspec.structs import replace

from gateway.cli.http import HttpServer
from gateway.config import Issuer
from gateway.operate import backends
from gateway.scope import Scope
from tests.serving import serving
from tests.unit.backends.rest.conftest import refused
from tests.unit.msh.test_tokens import AUD, ISS, Signer, bound
from tests.world import world


class Issuing:
    """An OAuth2 server that publishes its keys on a real port."""

    def __init__(self) -> None:
        self.signers, self.asked = [Signer("RS256", "one")], 0

    async def handle(self, request: web.Request) -> web.Response:
        self.asked += 1
        return web.json_response({"keys": [signer.jwk() for signer in self.signers]})

    @contextlib.asynccontextmanager
    async def running(self):
        async with serving(self.handle) as place:
            self.url = f"http://{place}/jwks"
            yield self

    def token(self, signer=None, **claims) -> str:
        import time

        now = int(time.time())
        return (signer or self.signers[0]).token(**({"iat": now, "exp": now + 300} | claims))


@pytest.fixture
async def issuing():
    async with Issuing().running() as made:
        yield made


@pytest.fixture(scope="module")
def pki(tmp_path_factory):
    from tests.unit.wire import Pki

    return Pki(tmp_path_factory.mktemp("pki"))


@pytest.fixture
async def lv(tmp_path, issuing):
    def with_issuer(config):
        issuer = Issuer(issuer=ISS, audience=AUD, jwks_url=issuing.url)
        return replace(config, plugin=replace(config.plugin, issuers=(issuer,)))

    async with world(tmp_path / "lv", change=with_issuer) as found:
        yield found


@pytest.fixture
async def door(lv, pki):
    """`await door(path of a client certificate or None, token)`: an HTTP client at the plugin listener."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = HttpServer(lv.gateway.plugin, [listening], tls=lambda: pki.server_context(client_ca=pki.ca))
    await server.start()
    made = []

    def connect(pair=None, token=None) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        url = f"https://localhost:{listening.getsockname()[1]}"
        made.append(httpx.AsyncClient(base_url=url, verify=pki.client_context(*([pair] if pair else [])), headers=headers))
        return made[-1]

    yield connect
    for client in made:
        await client.aclose()
    await server.stop_accepting()
    await server.finish(5)
    listening.close()


def der_of(pair) -> bytes:
    text = pair.read_text()
    return ssl.PEM_cert_to_DER_cert(text[text.index("-----BEGIN CERTIFICATE-----") :])


async def test_a_certificate_is_enough(lv, door, pki):
    pair, stranger = pki.pair("portal", usage="client"), pki.pair("stranger", usage="client")
    client, token = await backends.create(lv.store, "Portal", "rest", Scope(actions=("ExecuteQueryRequest",)))
    credential = await backends.add_certificate(lv.store, client.id, der_of(pair))
    http = door(pair)
    assert (await http.get("/v1/messages")).status_code == 200
    assert (await http.post("/v1/inbox/claim", json={})).json() == {"deliveries": []}
    for other in (door(), door(stranger)):
        refused(await other.get("/v1/messages"), "unauthorized")
    # a token decides where there is one: no falling back to the certificate
    assert (await door(pair, token).get("/v1/messages")).status_code == 200
    refused(await door(pair, "gw_wrong").get("/v1/messages"), "unauthorized")
    await backends.revoke(lv.store, credential.id)
    refused(await http.get("/v1/messages"), "unauthorized")


async def test_a_token_of_an_issuer(lv, door, issuing):
    client, _ = await backends.create(lv.store, "Evidence service", "rest")
    refused(await door(None, issuing.token()).get("/v1/messages"), "unauthorized")
    await backends.add_subject(lv.store, client.id, ISS, "evidence-service")
    assert (await door(None, issuing.token()).get("/v1/messages")).status_code == 200
    answers = set()
    head, body, _ = issuing.token().split(".")
    for bad in (issuing.token(aud="x"), issuing.token(exp=1), issuing.token(sub="x"), f"{head}.{body}.AAAA", "a.b.c",
                issuing.token(signer=Signer("RS256", "one")), issuing.token(pad="x" * 7000)):  # fmt: skip
        answer = await door(None, bad).get("/v1/messages")
        problem = refused(answer, "unauthorized")
        answers.add((json.dumps({**problem, "trace_id": ""}), answer.headers["www-authenticate"]))
    assert len(answers) == 1  # nobody learns which of them it was
    issuing.signers.append(Signer("ES256", "two"))
    assert (await door(None, issuing.token(signer=issuing.signers[1])).get("/v1/messages")).status_code == 200
    assert issuing.asked == 2


async def test_a_token_bound_to_a_certificate(lv, door, pki, issuing):
    pair, stranger = pki.pair("portal-2", usage="client"), pki.pair("thief", usage="client")
    client, _ = await backends.create(lv.store, "Evidence service", "rest")
    await backends.add_subject(lv.store, client.id, ISS, "evidence-service")
    token = issuing.token(**bound(der_of(pair)))
    assert (await door(pair, token).get("/v1/messages")).status_code == 200
    for other in (door(None, token), door(stranger, token)):
        refused(await other.get("/v1/messages"), "unauthorized")
    # the SOAP door takes the same tokens, and looks as closely
    for http, believed in ((door(pair, token), True), (door(None, token), False)):
        answer = await http.post("/services/wsplugin", content=b"<x/>", headers={"Content-Type": "application/soap+xml"})
        assert ("no valid authentication" not in answer.text) is believed


async def test_an_issuer_that_is_away(tmp_path, lv, door, issuing):
    lv.gateway.door._access._tokens._issuers[ISS][1]._fetch = _away
    answer = await door(None, issuing.token()).get("/v1/messages")
    refused(answer, "overloaded")
    assert int(answer.headers["retry-after"]) > 0


async def _away(issuer):
    raise OSError("no route")
