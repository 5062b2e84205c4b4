"""The operations listener: is it alive, is it ready, what has it counted.

    /livez      the process turns; restart it when this fails
    /startupz   configuration loaded, database migrated
    /readyz     send messages here; 503 while draining or passive, without a database, without keys
    /rolez      this node is well, whichever its role; the text says `active` or `passive`.
                /rolez/active and /rolez/passive are 200 in that role only
    /metrics    Prometheus

`?verbose` lists the checks as Kubernetes does, `[+]` and `[-]`. Reasons are told here and
nowhere else, which is why this listener is not for the internet [reliability 5.7].
"""

import inspect
from collections.abc import Awaitable, Callable

#: Verdict, and (check, ok, text) each.
Verdict = tuple[bool, list[tuple[str, bool, str]]]


class OpsApp:
    """ASGI application. Everything it tells comes from the callables it is given."""

    def __init__(
        self,
        *,
        ready: Callable[[], Verdict | Awaitable[Verdict]],
        role: Callable[[], Awaitable[tuple[str, Verdict]]],
        started: Callable[[], bool],
        metrics: Callable[[str], tuple[str, bytes]],
    ) -> None:
        """`role` returns the role and a verdict for it; `metrics` takes the Accept header and returns content type
        and text."""
        self._ready, self._role, self._started, self._metrics = ready, role, started, metrics

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        if scope["type"] != "http":
            return
        status, content_type, body = await self._respond(scope)
        headers = [
            (b"content-type", content_type.encode()),
            (b"content-length", str(len(body)).encode()),
            (b"cache-control", b"no-store"),
            (b"x-content-type-options", b"nosniff"),
        ]
        if status == 405:
            headers.append((b"allow", b"GET, HEAD"))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def _respond(self, scope: dict) -> tuple[int, str, bytes]:
        checks: list[tuple[str, bool, str]]
        role = ""
        match scope["path"]:
            case "/livez":
                verdict, checks = True, [("loop", True, "turns")]
            case "/startupz":
                verdict = self._started()
                checks = [("startup", verdict, "done" if verdict else "under way")]
            case "/readyz":
                verdict, checks = await self._verdict()
            case "/rolez" | "/rolez/active" | "/rolez/passive" as path:
                role, (verdict, checks) = await self._judged()
                verdict = verdict and path in ("/rolez", f"/rolez/{role}")
            case "/metrics":
                if scope["method"] not in ("GET", "HEAD"):
                    return _text(405, "GET or HEAD\n")
                accept = next((v for n, v in scope["headers"] if n == b"accept"), b"").decode("latin-1")
                return 200, *self._metrics(accept)
            case _:
                return _text(404, "/livez /readyz /rolez /startupz /metrics\n")
        if scope["method"] not in ("GET", "HEAD"):
            return _text(405, "GET or HEAD\n")
        text = f"{role or 'ok'}\n" if verdict else "not ready\n"
        if b"verbose" in scope["query_string"].split(b"&"):
            text = "".join(f"[{'+' if ok else '-'}]{name} {words}\n" for name, ok, words in checks) + text
        return _text(200 if verdict else 503, text)

    async def _judged(self) -> tuple[str, Verdict]:
        try:
            return await self._role()
        except Exception as error:
            return "", (False, [("check", False, type(error).__name__)])

    async def _verdict(self) -> Verdict:
        """What cannot be judged is not ready."""
        try:
            found = self._ready()
            return await found if inspect.isawaitable(found) else found
        except Exception as error:
            return False, [("check", False, type(error).__name__)]


def _text(status: int, text: str) -> tuple[int, str, bytes]:
    return status, "text/plain; charset=utf-8", text.encode()
