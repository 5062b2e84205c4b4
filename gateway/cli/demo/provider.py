"""The evidence provider of the demo: an Estonian register with a data service and a preview page.

A request for a birth certificate (procedure R1) without preview is answered by an exception
that names a fresh, single-use page. The certificate leaves only after the user has accepted
it there and the second request has come, in whichever order [tdd 4.9]. A system check
(procedure 00) needs no person and no preview.
"""

import secrets
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from msgspec.structs import replace

from gateway.cli.demo import pages
from gateway.cli.demo.ledger import Ledger
from gateway.cli.demo.office import Office, properties
from gateway.client import GatewayClient, Part
from gateway.oots import birth, codes, edm, samples
from gateway.oots.sdg import Person

HOST = "register.example.ee"
#: The official code of a request that only tests the way.
SYSTEM_CHECK = "00"


class Preview:
    """A page for one user and one exchange. Fields change under the provider's lock."""

    def __init__(self, scenario: samples.Scenario, evidence: bytes) -> None:
        self.scenario, self.evidence = scenario, evidence
        self.accepted: bool | None = None
        #: The second request, once it has come: the message and its index.
        self.request: tuple[Mapping[str, Any], edm.EdmIndex] | None = None


class Provider:
    """The data service. `site` serves its preview pages; users are sent back to `returns` only."""

    def __init__(self, client: GatewayClient, ledger: Ledger, site: pages.Site, returns: str) -> None:
        self.office = Office("EE->LV", client, ledger, self._take)
        self._site, self._returns = site, returns
        self._lock = threading.Lock()
        self._previews: dict[str, Preview] = {}
        self._seen: dict[str, str] = {}

    def start(self) -> None:
        self._site.start(self.page)
        self.office.start()

    def stop(self) -> None:
        self.office.stop()
        self._site.stop()

    # -- the data service ---------------------------------------------------------------

    def _take(self, message: Mapping[str, Any], document: bytes, _: Mapping[str, bytes]) -> None:
        if message["action"] != codes.REQUEST:
            return
        try:
            request = edm.index(document)
            person = edm.subject(document)
        except edm.EdmUnreadable:
            return  # there is nobody in it to whom an exchange error could be addressed
        if request.kind != "request" or request.requester is None or not request.request_id:
            return
        error = self._refusal(message, request, person)
        if error is not None:
            self._answer(message, codes.EXCEPTION, self._failure(request, *error))
        elif request.preview_url is not None:
            self._second_round(message, request)
        elif request.procedure == SYSTEM_CHECK:
            scenario = _scenario(request, None)
            self._deliver(message, request, scenario, _certificate(scenario))
        else:
            self._first_round(message, request, _scenario(request, person))

    def _first_round(self, message: Mapping[str, Any], request: edm.EdmIndex, scenario: samples.Scenario) -> None:
        token = secrets.token_urlsafe(24)
        with self._lock:
            self._previews[token] = Preview(scenario, _certificate(scenario))
        text = samples.preview_required(
            scenario,
            request_id=request.request_id or "",
            response_id=uuid4(),
            at=datetime.now(UTC),
            location=f"{self._site.address}/p/{token}",
            description="Look at the birth certificate and decide whether to send it",
        )
        self._answer(message, codes.EXCEPTION, text)

    def _refusal(
        self, message: Mapping[str, Any], request: edm.EdmIndex, person: Person | None
    ) -> tuple[str, str] | None:
        """Code and detail, or None; in the order a data service judges [oots 3.7]."""
        if request.specification != codes.EDM_2_0:
            return "EDM:ERR:0003", f"this service speaks {codes.EDM_2_0}"
        # The same message again is a redelivery; the same request in another message is a replay.
        first = self._seen.setdefault(request.request_id or "", message["message_id"])
        if first != message["message_id"]:
            return "EDM:ERR:0003", "TDD 4.4: request identifier already used"
        if request.procedure not in (birth.BIRTH.procedure, SYSTEM_CHECK):
            return "EDM:ERR:0004", "this service knows procedures R1 and 00"
        if person is None and request.procedure != SYSTEM_CHECK:
            return "EDM:ERR:0004", "no natural person in the request"
        if request.formats and birth.BIRTH.evidence.media_type not in request.formats:
            return "EDM:ERR:0007", "certificates are PDF"
        return None

    def _second_round(self, message: Mapping[str, Any], request: edm.EdmIndex) -> None:
        token = (request.preview_url or "").rpartition("/")[2]
        with self._lock:
            preview = self._previews.get(token)
            if preview is not None and preview.request is None:
                preview.request = (message, request)
        if preview is None or preview.request != (message, request):
            text = self._failure(request, "EDM:ERR:0005", "the preview link has been used or has expired")
            self._answer(message, codes.EXCEPTION, text)
        else:
            self._settle(token)

    # -- the preview page -----------------------------------------------------------------

    def page(self, method: str, path: str, form: Mapping[str, str]) -> pages.Page:
        """/p/{token}, /p/{token}/certificate.pdf"""
        head, _, rest = path.partition("/")
        token, _, file = rest.partition("/")
        with self._lock:
            preview = self._previews.get(token)
        if head != "p" or preview is None or preview.accepted is not None:
            return pages.not_found()
        if file == "certificate.pdf":
            return pages.Page(preview.evidence, content_type="application/pdf")
        decision = form.get("decision")
        if method != "POST" or decision not in ("accept", "decline"):
            return pages.preview("Birth certificate", f"/p/{token}/certificate.pdf")
        return self._decided(token, preview, decision == "accept")

    def _decided(self, token: str, preview: Preview, accepted: bool) -> pages.Page:
        with self._lock:
            if preview.accepted is not None:
                return pages.not_found()
            preview.accepted = accepted
            back = preview.request[1].return_url if preview.request else None
        self._settle(token)
        if back is not None and back.startswith(self._returns):  # else a peer could send our user anywhere
            return pages.html("Thank you", "", status=303, location=back)
        return pages.html("Thank you", "<p>You can close this page and go back to the portal.</p>")

    def _settle(self, token: str) -> None:
        """Answer the second request once there is a decision too. After that the link is dead."""
        with self._lock:
            preview = self._previews.get(token)
            if preview is None or preview.accepted is None or preview.request is None:
                return
            del self._previews[token]
        self._deliver(*preview.request, preview.scenario, preview.evidence if preview.accepted else None)

    # -- answering --------------------------------------------------------------------------

    def _deliver(
        self,
        message: Mapping[str, Any],
        request: edm.EdmIndex,
        scenario: samples.Scenario,
        evidence: bytes | None,
    ) -> None:
        """The certificate, or the empty list that says "nothing" without saying why."""
        id = uuid4()
        cid = f"certificate-{id}@{HOST}"
        today = f"{datetime.now(UTC):%Y-%m-%d}"
        documents = (samples.Document(cid=cid, title="Birth certificate", evidence_id=id, issued_on=today),)
        text = samples.response(
            scenario,
            request_id=request.request_id or "",
            response_id=uuid4(),
            at=datetime.now(UTC),
            documents=documents if evidence is not None else (),
        )
        parts = [Part(evidence, scenario.evidence.media_type, cid=cid)] if evidence is not None else []
        self._answer(message, codes.RESPONSE, text, *parts)

    def _answer(self, message: Mapping[str, Any], action: str, text: str, *more: Part) -> None:
        """Back to where the request came from, corners swapped, exchange repeated [oots H-22, H-23]."""
        given = properties(message)
        swapped = [
            {**given["finalRecipient"], "name": "originalSender"},
            {**given["originalSender"], "name": "finalRecipient"},
        ]
        self.office.send(
            message["from_party"],
            action,
            [Part(text.encode(), codes.REGREP_MEDIA_TYPE, cid=f"answer-{uuid4()}@{HOST}"), *more],
            conversation_id=message["conversation_id"],
            properties=swapped + [given[n] for n in (codes.EXCHANGE_ID, codes.SPECIFICATION_ID) if n in given],
        )

    def _failure(self, request: edm.EdmIndex, code: str, detail: str) -> str:
        return samples.failure(
            _scenario(request, None),
            request_id=request.request_id or "",
            response_id=uuid4(),
            at=datetime.now(UTC),
            code=code,
            detail=detail,
        )


def _scenario(request: edm.EdmIndex, person: Person | None) -> samples.Scenario:
    """This register's part of the exchange: who asked, and about whom."""
    return replace(
        birth.BIRTH,
        requester=request.requester or birth.BIRTH.requester,
        subject=person or birth.BIRTH.subject,
    )


def _certificate(scenario: samples.Scenario) -> bytes:
    now = datetime.now(UTC)
    number = f"EE-{now:%Y}-{secrets.randbelow(100_000):05}"
    return birth.certificate(scenario, number=number, issued_on=f"{now:%Y-%m-%d}")
