"""Serve an ASGI application with a real hypercorn on loopback, in a thread of its own."""

import asyncio
import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from hypercorn.asyncio import serve
from hypercorn.config import Config


@contextmanager
def serving(app) -> Iterator[str]:
    """The base URL of `app`."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(50)
    config = Config()
    config.bind = [f"fd://{listener.fileno()}"]
    config.graceful_timeout = 1
    config.errorlog = logging.getLogger("tests.listener")
    config.errorlog.propagate = False
    loop, stop, ready = asyncio.new_event_loop(), asyncio.Event(), threading.Event()

    async def run() -> None:
        ready.set()
        await serve(app, config, shutdown_trigger=stop.wait)

    thread = threading.Thread(target=lambda: loop.run_until_complete(run()), daemon=True)
    thread.start()
    ready.wait(10)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()
        listener.detach()
