"""The pages a citizen sees: the provider's preview, and the portal's "welcome back".

Served over HTTPS on loopback with a development certificate, because a PreviewLocation and
a ReturnLocation begin with https [oots 3.4]. Two sites, as in life: the provider's page does
not know the portal, only where to send the user afterwards.
"""

import ssl
import threading
import urllib.parse
from collections.abc import Callable, Mapping
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from msgspec import Struct

#: A decision is a word; more than this is not from our form.
MAX_FORM = 4096


class Page(Struct, frozen=True):
    """An answer to a browser."""

    body: bytes
    status: int = 200
    content_type: str = "text/html; charset=utf-8"
    location: str | None = None


#: Method, path without the leading slash, form → page.
View = Callable[[str, str, Mapping[str, str]], Page]


class Site:
    """An HTTPS server on a free loopback port. `address` has no slash at its end."""

    def __init__(self, tls: ssl.SSLContext) -> None:
        self._view: View | None = None
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        # The handshake is made by the thread of the connection, not by the one that accepts.
        self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self.address = f"https://127.0.0.1:{self._server.server_port}"

    def start(self, view: View) -> None:
        self._view = view
        self._thread.start()

    def stop(self) -> None:
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        site = self

        class Browser(BaseHTTPRequestHandler):
            timeout = 30

            def do_GET(self) -> None:
                self._answer("GET", {})

            def do_POST(self) -> None:
                length = int(self.headers.get("Content-Length") or 0)
                body = self.rfile.read(length) if 0 < length <= MAX_FORM else b""
                form = urllib.parse.parse_qs(body.decode("latin-1"))
                self._answer("POST", {name: values[0] for name, values in form.items()})

            def _answer(self, method: str, form: Mapping[str, str]) -> None:
                path = urllib.parse.urlsplit(self.path).path.lstrip("/")
                page = site._view(method, path, form) if site._view else not_found()
                self.send_response(page.status)
                if page.location is not None:
                    self.send_header("Location", page.location)
                self.send_header("Content-Type", page.content_type)
                self.send_header("Content-Length", str(len(page.body)))
                self.send_header("Content-Security-Policy", "default-src 'none'; frame-src 'self'; form-action *")
                self.send_header("Referrer-Policy", "no-referrer")
                self.end_headers()
                self.wfile.write(page.body)

            def log_message(self, *_: object) -> None:
                """The demo's output is for the exchange."""

        return Browser


def html(title: str, body: str, *, status: int = 200, location: str | None = None) -> Page:
    """A small page; `body` is HTML, `title` is text."""
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
    return Page(f"{head}<h1>{escape(title)}</h1>{body}</html>".encode(), status, location=location)


def not_found() -> Page:
    return html("Nothing here", "<p>This link has been used, has expired, or never was.</p>", status=404)


def preview(title: str, document: str) -> Page:
    """The evidence, and the two buttons that decide. `document` is the address of the PDF."""
    return html(
        title,
        f'<p>The Latvian portal asked for this certificate. <a href="{escape(document)}">Open it as PDF</a>.</p>'
        '<form method="post"><button name="decision" value="accept">Send it</button> '
        '<button name="decision" value="decline">Do not send it</button></form>',
    )
