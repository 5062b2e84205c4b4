"""Where every value of a leg comes from: profile, file, exchange, override, reply, party, or the product itself.

The layers a leg was merged from are asked again, the most specific first: the one that says something is
the one whose value won. What no layer says is what `Leg` and `RetryPolicy` have by default.
"""

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from gateway.as4.pmode import Leg, PModeSet
from gateway.config.places import Places, around, dotted
from gateway.config.strict import build, parse_toml
from gateway.errors import ConfigError
from gateway.pmodes.agreements import Document, Exchange, Retry, Terms
from gateway.pmodes.bundle import Files
from gateway.pmodes.expand import all_made, expand
from gateway.pmodes.layers import Layer, Made
from gateway.pmodes.network import NetworkFile, is_network
from gateway.pmodes.origin_network import NetworkOrigins
from gateway.pmodes.parties import parties_of
from gateway.pmodes.toml import locate, read
from gateway.pmodes.updates import OWN_TERMS

DEFAULT = "default"
UPDATE = "agreement update"


class Origin(Struct, frozen=True):
    """`layer` is a word for people; `file` and `key` say where it stands, `line` is 0 where it is not known."""

    layer: str
    file: str = ""
    line: int = 0
    key: str = ""

    def __str__(self) -> str:
        if not self.file or self.file == self.layer:
            return self.layer
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{self.layer} ({place}: {self.key})" if self.key else f"{self.layer} ({place})"


class Value(NamedTuple):
    """One value of a leg. `name` is the field, with a point for what is inside (`retry.first`)."""

    name: str
    value: object
    origin: Origin


#: The line of a key of a file.
Lines = Callable[[str, str], int]


def values_of(
    made: Made, line: Lines = lambda file, key: 0, network: NetworkOrigins | None = None
) -> Iterator[Value]:
    """Every value of a leg with its origin. `network`: the file is about one."""
    leg, document = made.leg, made.document
    exchange: Exchange = made.exchange.terms  # type: ignore[assignment]
    # The test leg made of an answer has the roles the other way round, too.
    answer = made.layers[-1] if made.layers[-1].name == "reply" else None

    def at(layer: str, file: str, key: str) -> Origin:
        return Origin(layer, file, line(file, key) if key else 0, key)

    def within(layer: Layer, name: str) -> Origin:
        return at(layer.name, layer.file, f"{layer.key}.{name}" if layer.key else name)

    def of_terms(name: str, inner: str | None = None) -> Origin:
        if leg.is_update and name in OWN_TERMS:
            return Origin(UPDATE)
        for layer in reversed(made.layers):
            value = getattr(layer.terms, name, None)
            if value is None or (inner is not None and getattr(value, inner) is None):
                continue
            place = None
            if network and layer.name == "override":
                place = network.override(_last(layer.key), name, inner)
            elif network and layer is made.exchange:
                place = network.term(exchange, value if inner is None else getattr(value, inner), name, inner)
            return at(*place) if place else within(layer, name if inner is None else f"{name}.{inner}")
        return Origin(DEFAULT)

    def of_exchange(name: str) -> Origin:
        if leg.is_test and name in ("service", "action", "mpc", "mep"):
            return Origin("test service")
        if leg.is_update:
            return Origin(UPDATE)
        if answer is not None and getattr(answer.terms, name, None) is not None:
            return within(answer, name)
        if getattr(exchange, name) not in (None, "one-way"):
            return at(*network.fact(exchange, name)) if network else within(made.exchange, name)
        # Roles may stand in the profile.
        layers = [layer for layer in made.layers if layer is not made.exchange and getattr(layer.terms, name, None)]
        return within(layers[0], name) if layers else Origin(DEFAULT)

    def of_party(name: str, field: str) -> Origin:
        if network:
            return at(*network.party(name, field))
        return at("party", document.name, dotted("parties", name) + (f".{field}" if field == "endpoint" else ""))

    yield Value("from_party", leg.from_party.name, of_party(leg.from_party.name, "id"))
    yield Value("to_party", leg.to_party.name, of_party(leg.to_party.name, "id"))
    yield Value("endpoint", leg.to_party.endpoint, of_party(leg.to_party.name, "endpoint"))
    yield Value("profile", leg.profile, at(*(network.profile if network else ("file", document.name, "profile"))))
    yield Value("from_role", leg.from_role, of_exchange("to_role" if answer else "from_role"))
    yield Value("to_role", leg.to_role, of_exchange("from_role" if answer else "to_role"))
    yield Value("service", leg.service, of_exchange("service"))
    yield Value("action", leg.action, of_exchange("action"))
    yield Value("agreement", leg.agreement, of_exchange("agreement"))
    yield Value("mpc", leg.mpc, of_exchange("mpc"))
    yield Value("mep", leg.mep, of_exchange("mep"))
    yield Value("mep_binding", leg.mep_binding, of_exchange("mep"))
    for name in Terms.__struct_fields__:
        if name == "retry":
            for inner in Retry.__struct_fields__:
                yield Value(f"retry.{inner}", getattr(leg.retry, inner), of_terms("retry", inner))
        elif name in Leg.__struct_fields__:
            yield Value(name, getattr(leg, name), of_terms(name))


def _last(key: str) -> str:
    """The name of an override, out of its key."""
    name = key[len(around(key)) + 1 :]
    return json.loads(name) if name.startswith('"') else name


class Explained:
    """Agreements with the origin of every value. Raises `ConfigError`."""

    def __init__(self, files: Files) -> None:
        try:
            documents = [read(files, name) for name in files.agreements]
            self.pmodes: PModeSet = expand(documents)
            made = all_made(documents, parties_of(documents))
        except ConfigError as error:
            raise locate(error, files) from None
        self._made = {id(leg): made for leg, made in zip(self.pmodes.legs, made, strict=True)}
        names = {str(files.path(name)): name for name in files.agreements}
        self._places = {file: Places(files.agreement(name).decode(errors="replace")) for file, name in names.items()}
        self._networks = {d.name: _network(d, names[d.name], files) for d in documents}

    def values(self, leg: Leg) -> list[Value]:
        """Every value of a leg of `pmodes`."""
        made = self._made[id(leg)]
        return list(values_of(made, self._line, self._networks[made.document.name]))

    def facts(self, leg: Leg) -> list[dict[str, Any]]:
        """The same as plain values, for JSON."""
        return [{"name": name, "value": msgspec.to_builtins(value), "origin": str(origin)}
                for name, value, origin in self.values(leg)]  # fmt: skip

    def _line(self, file: str, key: str) -> int:
        return self._places[file].line(key) if file in self._places else 0


def _network(document: Document, name: str, files: Files) -> NetworkOrigins | None:
    if name.lower().endswith(".xml"):
        return None
    raw = parse_toml(files.agreement(name), document.name)
    if not is_network(raw):
        return None
    said = build(raw, NetworkFile, file=document.name, base=files.base)
    return NetworkOrigins(said, document.name, str(files.path(said.network.pmode)), document.file.profile)
