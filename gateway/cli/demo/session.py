"""One demo from its first second to its last: start, exchange, hints, end.

Whatever happens in between, the end is the same: business software, gateways and databases
stop, and the folder goes unless it is to be kept.
"""

import shutil
import signal
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gateway.cli.demo import nodes, pages, show
from gateway.cli.demo.hints import show_hints
from gateway.cli.demo.ledger import DemoFailed, Ledger
from gateway.cli.demo.nodes import Node, Ports
from gateway.cli.demo.provider import Provider
from gateway.cli.demo.requester import Requester
from gateway.cli.demo.scenario import STEPS, Result, exchange
from gateway.client import GatewayClient, GatewayProblem
from gateway.errors import GatewayError

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
                    self._requester.office.retire()
                    lv, ee = self._nodes
                    show_hints(self._screen, self._root, lv, ee, self._results[0].message_id, kept=self._keep)
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
