"""OpenTelemetry traces, for those who want them: the extra `[otel]` and `traces.endpoint`.

Spans are made of the stages that are measured anyway (`stages`), when a piece of work is done: one
for the work, one for each stage in it. Nothing is added to the path of a message, and where traces are
off nothing of OpenTelemetry is imported. What a producer says in `traceparent` is the parent of the
submission and of every attempt to send it, days later too; a message that has none gets one.

A span has stages, times, the ids of the header and the kinds of failure. Nothing of payloads,
properties or texts of errors, for the reasons of `log` [threats M04].
"""

import os
from collections.abc import Callable
from typing import Any

from gateway import __version__, stages
from gateway.errors import ConfigError
from gateway.stages import Step

#: A stage that only one kind of work has -> the name of the work, and its type in the conventions for messaging.
WORK = {
    "deliver": ("deliver", "process"), "notify": ("notify", "send"), "connect": ("send", "send"),
    "wait": ("send", "send"),
}  # fmt: skip
_provider: Any = None


def begin(endpoint: str, node: str, message_id: Callable[[], str | None], *, exporter: Any = None) -> None:
    """Send spans to `endpoint` (OTLP over HTTP) from now on. Raises `ConfigError` where the extra is not installed."""
    global _provider
    try:
        from opentelemetry import trace
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        if exporter is None:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

            exporter = OTLPSpanExporter(endpoint=endpoint)
    except ImportError as error:
        raise ConfigError(
            f"OpenTelemetry is not installed ({error.name})", key="traces.endpoint",
            hint="install the extra: pip install 'oots-as4-gateway[otel]'",
        ) from None  # fmt: skip
    resource = Resource.create({
        "service.name": "oots-as4-gateway", "service.version": __version__, "service.instance.id": node
    })  # fmt: skip
    _provider = TracerProvider(resource=resource)
    _provider.add_span_processor(BatchSpanProcessor(exporter))
    stages.watch(_Spans(trace, _provider.get_tracer("gateway", __version__), message_id))


def end() -> None:
    """Send what waits, within the exporter's own time, and stop."""
    global _provider
    if _provider is not None:
        stages.watch(None)
        _provider.shutdown()
        _provider = None


def mine() -> str | None:
    """The trace context for a new message: the producer's, else a new one where traces are on, else none."""
    given = stages.trace.get()
    if given is None and _provider is not None:
        given = f"00-{os.urandom(16).hex()}-{os.urandom(8).hex()}-01"
        stages.trace.set(given)
    return given


class _Spans:
    """Makes spans of finished work."""

    def __init__(self, trace: Any, tracer: Any, message_id: Callable[[], str | None]) -> None:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self._trace, self._tracer, self._message_id = trace, tracer, message_id
        self._propagator = TraceContextTextMapPropagator()

    def __call__(self, direction: str, steps: list[Step]) -> None:
        if not steps:
            return
        names = {step.stage for step in steps}
        usual = ("submit", "create") if direction == "outbound" else ("receive", "receive")
        work, kind = next((WORK[name] for name in WORK if name in names), usual)
        attributes = {"messaging.system": "as4", "messaging.operation.name": work, "messaging.operation.type": kind}
        if id := self._message_id():
            attributes["messaging.message.id"] = id
        given = stages.trace.get()
        context = self._propagator.extract({"traceparent": given}) if given else None
        began = min(step.started for step in steps)
        ended = max(step.started + step.seconds for step in steps)
        whole = self._tracer.start_span(
            f"as4 {work}", context=context, start_time=_nanoseconds(began), attributes=attributes
        )
        inside = self._trace.set_span_in_context(whole)
        for step in steps:
            span = self._tracer.start_span(step.stage, context=inside, start_time=_nanoseconds(step.started))
            if step.error:
                for one in (span, whole):
                    one.set_status(self._trace.Status(self._trace.StatusCode.ERROR, step.error))
            span.end(_nanoseconds(step.started + step.seconds))
        whole.end(_nanoseconds(ended))


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1e9)
