"""A listener of aiohttp on a free loopback port, for what stands in for somebody else's server."""

import contextlib

from aiohttp import web


@contextlib.asynccontextmanager
async def serving(handle, *, tls=None, patience=60.0):
    """`host:port` of a server that answers every request with `handle(request)`. At the end those under way get
    `patience` seconds."""
    runner = web.ServerRunner(web.Server(handle), shutdown_timeout=patience)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    try:
        yield f"127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
    finally:
        await runner.cleanup()
