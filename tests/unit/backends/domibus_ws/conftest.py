"""The SOAP door of a real gateway, on a real port, and clients for it."""

import asyncio
import base64
import contextlib
import socket

import aiohttp
import pytest
from zeep import Client, Settings
from zeep.transports import Transport

from gateway.cli.http import HttpServer
from gateway.msh import access
from gateway.operate import backends
from gateway.scope import Scope
from tests.world import world

PATH = "/services/wsplugin"


class Soap:
    """One plugin user at the door."""

    def __init__(self, site, login: str, password: str) -> None:
        self.site, self.login, self.password = site, login, password

    @property
    def authorization(self) -> str:
        return "Basic " + base64.b64encode(f"{self.login}:{self.password}".encode()).decode()

    async def post(self, body, *, path: str = PATH, content_type: str = "application/soap+xml; charset=UTF-8", **more):
        """(status, Content-Type, octets)"""
        async with aiohttp.ClientSession() as session:
            headers = {"Content-Type": content_type, "Authorization": self.authorization, **more}
            async with session.post(self.site.url + path, data=body, headers=headers) as answer:
                return answer.status, answer.headers.get("Content-Type", ""), await answer.read()

    async def zeep(self, *, path: str = PATH) -> "Zeep":
        """A client generated from the WSDL that is served."""

        def make():
            transport = Transport(timeout=60, operation_timeout=60)
            transport.session.auth = (self.login, self.password)
            return Client(f"{self.site.url}{path}?wsdl", transport=transport, settings=Settings(strict=True, xml_huge_tree=True))

        return Zeep(await asyncio.to_thread(make))


class Zeep:
    def __init__(self, client: Client) -> None:
        self.client = client

    async def __call__(self, operation: str, *args, **kwargs):
        return await asyncio.to_thread(lambda: getattr(self.client.service, operation)(*args, **kwargs))


class Site:
    def __init__(self, lv, url: str) -> None:
        self.lv, self.url = lv, url

    async def user(self, login: str = "portal", *, backend: str = "rest", **scope) -> Soap:
        _, password = await backends.create(self.lv.store, login, backend, Scope(**scope), login=login)
        return Soap(self, login, password)


@contextlib.asynccontextmanager
async def site_of(lv):
    listening = socket.create_server(("127.0.0.1", 0))
    server = HttpServer(lv.gateway.plugin, [listening])
    await server.start()
    try:
        yield Site(lv, f"http://127.0.0.1:{listening.getsockname()[1]}")
    finally:
        await server.stop_accepting()
        await server.finish(5)
        listening.close()


@pytest.fixture
async def lv(tmp_path, monkeypatch):
    monkeypatch.setattr(access, "ROUNDS", 4)
    async with world(tmp_path / "lv") as found:
        yield found


@pytest.fixture
async def site(lv):
    async with site_of(lv) as found:
        yield found


@pytest.fixture
async def portal(site):
    return await site.user()
