"""The evidence requester of the demo: a Latvian portal that needs a birth certificate.

    idle → asked → preview (the user is sent to the provider's page) → evidence

One exchange at a time is enough here. Messages of other exchanges, which a curious user of
the demo may have started, are taken and left alone.
"""

import secrets
import ssl
import threading
import urllib.parse
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from gateway.cli.demo import pages
from gateway.cli.demo.ledger import DemoFailed, Ledger, digest
from gateway.cli.demo.office import Office
from gateway.client import GatewayClient, Part
from gateway.oots import birth, codes, edm, samples

#: The access point that serves Estonia's register, as the Data Service Directory would say.
AP_EE = {"id": "AP_EE_01", "type": f"{codes.UNREGISTERED}EE"}


class Requester:
    """The portal. `browser` is the TLS context of the citizen's browser."""

    def __init__(self, client: GatewayClient, ledger: Ledger, site: pages.Site, browser: ssl.SSLContext) -> None:
        self.office = Office("LV->EE", client, ledger, self._take)
        self.evidence: bytes | None = None
        self.shown: str | None = None
        self.complete = threading.Event()
        self.conversation, self.exchange = str(uuid4()), str(uuid4())
        self._site = site
        # No proxy of the environment: the pages are on this machine.
        self._browser = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=browser)
        )
        self._return = f"{site.address}/return/{secrets.token_urlsafe(12)}"
        self._requests: list[str] = []

    def start(self) -> None:
        self._site.start(self.page)
        self.office.start()

    def stop(self) -> None:
        self.office.stop()
        self._site.stop()

    def page(self, method: str, path: str, form: Mapping[str, str]) -> pages.Page:
        """Where the provider sends the citizen back to."""
        if self._return != f"{self._site.address}/{path}":
            return pages.not_found()
        return pages.html("Welcome back", "<p>Your certificate is on its way to us.</p>")

    def ask(self, preview_location: str | None = None) -> None:
        """Send request 1, or, with the location from the exception, request 2 [tdd 4.9]."""
        id = uuid4()
        document = samples.request(
            birth.BIRTH,
            id=id,
            at=datetime.now(UTC),
            preview_location=preview_location,
            return_location=self._return if preview_location else None,
        )
        self._requests.append(f"urn:uuid:{id}")
        self.office.send(
            AP_EE,
            codes.REQUEST,
            [Part(document.encode(), codes.REGREP_MEDIA_TYPE, cid=f"request-{id}@portal.example.lv")],
            conversation_id=self.conversation,
            properties=request_properties(self.exchange),
        )

    def _take(self, message: Mapping[str, Any], document: bytes, payloads: Mapping[str, bytes]) -> None:
        if message["conversation_id"] != self.conversation:
            return
        try:
            answer = edm.index(document)
        except edm.EdmUnreadable as error:
            raise DemoFailed(f"the portal cannot read the answer: {error}") from None
        if answer.request_id not in self._requests or self.complete.is_set():
            return  # an answer nobody waits for, or a second one [tdd 4.4]
        if answer.outcome == "preview" and answer.preview_url is not None and len(self._requests) == 1:
            # Request 2 and the user's visit are independent; the provider must bear any order.
            self.ask(answer.preview_url)
            self._visit(answer.preview_url)
        elif answer.outcome == "evidence":
            wanted = edm.content_id(answer.attachments[0].href)
            self.evidence = payloads.get(wanted)
            self.complete.set()
        else:
            codes_ = ", ".join(e.code or "no code" for e in answer.exceptions)
            raise DemoFailed(f"the provider answered with {answer.outcome}{': ' + codes_ if codes_ else ''}")

    def _visit(self, location: str) -> None:
        """What the citizen does: open the page, look at the certificate, accept."""
        self._browse(location)
        self.shown = digest(self._browse(f"{location}/certificate.pdf"))
        self._browse(location, urllib.parse.urlencode({"decision": "accept"}).encode())

    def _browse(self, url: str, form: bytes | None = None) -> bytes:
        with self._browser.open(url, form, timeout=10) as page:
            return page.read()


def request_properties(exchange: str) -> list[dict[str, str]]:
    """The four message properties of a 2.0 request [oots 2.3]."""
    scenario = birth.BIRTH
    return [
        {"name": "originalSender", "type": scenario.requester.scheme or "", "value": scenario.requester.id},
        {"name": "finalRecipient", "type": scenario.provider.scheme or "", "value": scenario.provider.id},
        {"name": codes.EXCHANGE_ID, "value": exchange},
        {"name": codes.SPECIFICATION_ID, "value": codes.EDM_2_0},
    ]
