"""A gateway that keeps nothing, for tests of supervisor and workers: `trivial_gateway:build`.

It notes what happens to it in the file GATEWAY_TRIVIAL_LOG, one line each.
"""

import asyncio
import contextlib
import os
import time

from gateway import metrics
from gateway.errors import ConfigError


def note(text):
    if path := os.environ.get("GATEWAY_TRIVIAL_LOG"):
        with open(path, "a") as file:
            file.write(f"{os.getpid()} {text}\n")


class Gateway:
    def __init__(self):
        self.draining = False
        self.as4, self.plugin = self.serve, self.serve

    async def serve(self, scope, receive, send):
        path = scope["path"]
        if path == "/die":
            os._exit(1)
        if path == "/hang":
            time.sleep(60)
        octets = 0
        while True:
            event = await receive()
            if event["type"] == "http.disconnect":
                note("disconnect")
                return
            octets += len(event["body"])
            if not event["more_body"]:
                break
        metrics.message("inbound", "P", "A", "received")
        body = f"{os.getpid()} {octets} {sorted(os.environ.get('GATEWAY_CRASH', ''))} {os.umask(0o77):o}".encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"%d" % len(body))]})
        await send({"type": "http.response.body", "body": body})

    async def start(self):
        note("start")

    async def step_down(self):
        note("step_down")

    async def role(self):
        return "active", await self.ready()

    async def drain(self):
        self.draining = True
        note("drain")
        await asyncio.sleep(float(os.environ.get("GATEWAY_TRIVIAL_DRAIN", "0")))

    async def close(self):
        note("close")

    def tls_key(self, use):
        return None  # no ring: the files

    async def reload(self):
        if os.environ.get("GATEWAY_TRIVIAL_BAD_RELOAD"):
            raise ConfigError("the new agreements are wrong")
        note("reload")

    async def ready(self):
        return True, [("store", True, "there is none")]


async def build(config):
    with contextlib.suppress(KeyError):
        raise ConfigError(os.environ["GATEWAY_TRIVIAL_BROKEN"], key="as4.paths", hint="mend it")
    return Gateway()


async def build_slowly(config):
    await asyncio.sleep(30)
