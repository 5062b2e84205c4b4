"""One demo from its first second to its last: start, exchange, hints, end.

Whatever happens in between, the end is the same: business software, gateways and databases
stop, and the folder goes unless it is to be kept.
"""

import json
import shutil
import signal
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import msgspec

from gateway.cli.demo import nodes, pages, show
from gateway.cli.demo.ledger import DemoFailed, Ledger
from gateway.cli.demo.nodes import Node, Ports
from gateway.cli.demo.provider import Provider
from gateway.cli.demo.requester import Requester, request_properties
from gateway.cli.demo.scenario import STEPS, Result, exchange
from gateway.client import GatewayClient, GatewayProblem
from gateway.errors import GatewayError
from gateway.oots import birth, codes, samples

#: With nodes that end in good order this is never used up; it bounds the worst case.
END_SECONDS = nodes.STOP_PATIENCE
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Session:
    """Runs once; `run` returns the exit status."""

    def __init__(self, *, once: bool, as_json: bool, keep: bool) -> None:
        self._once, self._as_json, self._keep = once, as_json, keep
        self._screen = show.Screen(quiet=as_json)
        self._begun = time.monotonic()
        self._results: list[Result] = []
        self._root: Path | None = None
        self._ports = Ports()
        self._nodes: list[Node] = []
        self._requester: Requester | None = None
        self._provider: Provider | None = None
        self._asked_to_stop = False
        self._seconds = 0.0

    def run(self) -> int:
        """0: everything proven. 1: it failed, and why has been said. 130: interrupted before that."""
        for number in STOPPING:
            signal.signal(number, self._interrupt)
        error: str | None = None
        interrupted = False
        try:
            try:
                self._start()
                self._exchange()
                self._seconds = time.monotonic() - self._begun
                if not self._once:
                    self._hints()
                    self._wait()
            except KeyboardInterrupt:
                interrupted = len(self._results) < len(STEPS)
                error = "interrupted" if interrupted else None
            except Exception as caught:
                error = _one_sentence(caught)
        finally:
            self._end()
        self._report(error)
        return 130 if interrupted else 1 if error else 0

    def _report(self, error: str | None) -> None:
        if error:
            self._seconds = time.monotonic() - self._begun
            self._screen.failed(error)
        elif not self._once:
            self._screen.done("everything stopped" + ("" if self._keep else " and deleted"))
        if self._keep and self._root is not None:
            self._screen.section("Kept", [str(self._root)])
        if self._as_json:
            self._screen.json(error is None, self._seconds, self._results, error)

    def _interrupt(self, *_: object) -> None:
        """The first signal ends the demo; the end itself is short and not to be interrupted."""
        if not self._asked_to_stop:
            self._asked_to_stop = True
            raise KeyboardInterrupt

    def _pulse(self) -> None:
        """The exception of a signal is lost when it strikes within a callback of the interpreter
        (a handler that runs at fork, for one); then the note of it counts."""
        if self._asked_to_stop:
            raise KeyboardInterrupt

    # -- beginning ------------------------------------------------------------------------

    def _start(self) -> None:
        began = time.monotonic()
        self._root = nodes.make_root()
        self._nodes = [Node(country, self._root, self._ports, n) for n, country in enumerate(("LV", "EE"))]
        _together(Node.make_keys, self._nodes)
        for node in self._nodes:
            node.write_configuration(self._nodes)
        self._screen.done("keys and certificates for both sides (valid 24 h)", time.monotonic() - began)
        began = time.monotonic()
        for node in self._nodes:
            node.start()
        until = began + nodes.START_PATIENCE
        for node in self._nodes:
            node.wait_until_ready(until, self._pulse)
            node.begin_client()
        for node in self._nodes:
            node.finish_client()
        self._pulse()
        self._screen.done("two access points, each with a private PostgreSQL", time.monotonic() - began)
        for node in self._nodes:
            self._screen.done(f"{node.party}   {node.endpoint}   plugin API {node.api}")

    def _exchange(self) -> None:
        lv, ee = self._nodes
        ledger = Ledger(self._pulse)
        portal = pages.Site(nodes.site_context(lv))
        self._requester = Requester(GatewayClient(lv.api, lv.token), ledger, portal, nodes.browser_context(self._nodes))
        self._provider = Provider(
            GatewayClient(ee.api, ee.token), ledger, pages.Site(nodes.site_context(ee)), returns=portal.address
        )
        self._provider.start()
        self._requester.start()
        for (_, name), result in zip(STEPS, exchange(self._requester, ledger), strict=True):
            self._results.append(result)
            self._screen.message(name, result)
        told = self._requester.office.notified + self._provider.office.notified
        self._screen.done(f"business software told by signed webhook ({told} times), evidence taken and acknowledged")
        path = self._root / "birth-certificate.pdf"
        path.write_bytes(self._requester.evidence or b"")

    def _wait(self) -> None:
        """Until Ctrl-C, or until a node ends without being asked."""
        while True:
            self._pulse()
            for node in self._nodes:
                node.check()
            time.sleep(0.5)

    # -- what to try next ---------------------------------------------------------------------

    def _hints(self) -> None:
        lv, root, gateway = self._nodes[0], self._root, show.command()
        self._write_own(root)
        last = self._results[0].message_id
        self._screen.section(
            "Look at it",
            [
                f"{root}/birth-certificate.pdf",
                f"{gateway} messages list --config {lv.config}",
                f"{gateway} messages trace {last} --config {lv.config}",
            ],
        )
        self._screen.section(
            "Send your own (a system check; change request.xml and the number as you like)",
            [
                f"curl -H 'Authorization: Bearer {lv.token}' -H 'Idempotency-Key: 1' \\",
                f"     -F 'meta=@{root}/meta.json;type=application/json' \\",
                f"     -F 'request=@{root}/request.xml;type={codes.REGREP_MEDIA_TYPE}' '{lv.api}/v1/messages?wait=10'",
            ],
        )
        self._screen.section("Stop", ["Ctrl-C." + ("" if self._keep else " Everything above is deleted.")])
        self._screen.box("demo: throwaway keys, loopback only, not for production")

    def _write_own(self, root: Path) -> None:
        """A request of one's own to start from: the system check, which needs no person."""
        scenario = msgspec.structs.replace(birth.BIRTH, procedure="00")
        (root / "request.xml").write_text(samples.request(scenario, id=uuid4(), at=datetime.now(UTC)))
        meta = {
            "to_party": {"id": self._nodes[1].party},
            "service": codes.QUERY_MANAGER,
            "service_type": codes.SERVICE_TYPE,
            "action": codes.REQUEST,
            "conversation_id": str(uuid4()),
            "properties": request_properties(str(uuid4())),
            "parts": [{"mime_type": codes.REGREP_MEDIA_TYPE}],
        }
        (root / "meta.json").write_text(json.dumps(meta, indent=2) + "\n")

    # -- the end --------------------------------------------------------------------------------

    def _end(self) -> None:
        """Nothing interrupts it: it is bounded, and half an end would leave processes behind."""
        for number in STOPPING:
            signal.signal(number, signal.SIG_IGN)
        until = time.monotonic() + END_SECONDS
        for node in self._nodes:
            node.ask_to_stop()
        _together(lambda end: end(), [one.stop for one in (self._requester, self._provider) if one is not None])
        _together(lambda node: node.stop(until), self._nodes)
        self._ports.close()
        if self._root is not None and not self._keep:
            shutil.rmtree(self._root, ignore_errors=True)


def _together(call: Callable, items: Iterable) -> None:
    """`call(item)` for all of them at once. Raises the first error."""
    items = list(items)
    if not items:
        return
    with ThreadPoolExecutor(len(items)) as pool:
        for future in [pool.submit(call, item) for item in items]:
            future.result()


def _one_sentence(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    return text if isinstance(error, DemoFailed | GatewayError | GatewayProblem) else f"{type(error).__name__}: {text}"
