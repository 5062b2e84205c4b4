"""The levels of an agreement, from the least to the most specific, and what they say together.

A leg is made of layers: what the profile version says, the file, the exchange, overrides. A layer
remembers where it stands, so that a mistake is shown there and every value of a leg can be traced
to the place that gave it (`origin`).
"""

from collections.abc import Iterable
from typing import NamedTuple

from gateway.as4.pmode import Leg, PropertyRule, RetryPolicy
from gateway.config.places import dotted
from gateway.config.strict import Duration, Size
from gateway.errors import ConfigError
from gateway.pmodes.agreements import Document, Terms


class Layer(NamedTuple):
    """One level. `name` is for people; `file` and `key` say where it stands (key "": the top of the file)."""

    name: str
    terms: Terms
    file: str
    key: str = ""


class Made(NamedTuple):
    """A leg with what it was made from. The terms of `exchange` are the `Exchange`."""

    leg: Leg
    layers: tuple[Layer, ...]
    exchange: Layer
    document: Document


def merge(layers: Iterable[Layer]) -> dict:
    """The values of all layers, the later ones over the earlier, as fields of a leg. Raises `ConfigError`."""
    values: dict = {}
    retry = RetryPolicy()
    for layer in layers:
        for name in Terms.__struct_fields__:
            if (value := getattr(layer.terms, name)) is None:
                continue
            if name == "properties":
                values[name] = tuple(PropertyRule(p) if isinstance(p, str) else p for p in value)
                continue
            if name != "retry":
                values[name] = _plain(value)
                continue
            try:
                retry = value.over(retry)
            except ValueError as error:
                raise ConfigError(
                    str(error).removeprefix("retry: "), file=layer.file, key=dotted(layer.key, "retry")
                ) from None
    return {**values, "retry": retry}


def _plain(value: object) -> object:
    """A leg holds plain numbers; how sizes and durations are written ends here."""
    return int(value) if isinstance(value, Size) else float(value) if isinstance(value, Duration) else value
