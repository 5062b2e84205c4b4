"""An agreement file said shorter: what the profile says already, and what all exchanges share, said once.

The result expands to the same legs. `materialise` is the way back: everything said in full at every
exchange, so that something can be laid over it.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from gateway.as4 import ns
from gateway.as4.pmode import Leg, PropertyRule, RetryPolicy
from gateway.pmodes.agreements import Defaults, Exchange, File, Retry, Terms
from gateway.pmodes.defaults import defaults_of

_DEFAULTS: dict[str, Any] = {
    field.name: field.default for field in msgspec.structs.fields(Leg) if field.name in Terms.__struct_fields__
}
#: What the profile of a community adds to the suite it is made of.
_COMMUNITIES = {"edelivery-as4/1.15": ("oots/1.2", "oots/2.0")}


def materialise(file: File) -> File:
    """The same agreements with every term at every exchange, and no exchange left to the profile.

    Overrides for one partner stay; those for all (`*:EXCHANGE`) go into the exchange.
    """
    common = defaults_of(file.profile)
    kept = [exchange for exchange in common.exchanges if exchange.name not in file.without]
    made = [_full(e, [common, e, file, *_everyone(file, e)], common) for e in kept]
    made += [_full(e, [common, file, e, *_everyone(file, e)], common) for e in file.exchanges]
    overrides = {key: terms for key, terms in file.overrides.items() if not key.startswith("*:")}
    top = dict.fromkeys(Terms.__struct_fields__)
    without = tuple(e.name for e in common.exchanges)
    return msgspec.structs.replace(file, **top, exchanges=tuple(made), overrides=overrides, without=without)


def shorten(file: File, profile: str | None = None) -> File:
    """The shortest file with the same agreements that `file`, a materialised one, has.

    `profile` is the community profile to use where its suite fits; without it the one is taken whose
    exchanges and properties are those of the file, if there is such a one. With `profile`, the
    properties are those of the profile where it has all that the file has.
    """
    best = profile if profile and _same_suite(file.profile, profile) else _likeliest(file)
    common = defaults_of(best)
    own: list[Exchange] = []
    taken: dict[str, tuple[Exchange, Exchange]] = {}
    for exchange in file.exchanges:
        like = _match(exchange, common)
        if like is not None and like.name not in taken:
            taken[like.name] = (like, exchange)
        else:
            own.append(exchange)
    forced = {name for name, (_, exchange) in taken.items() if best == profile and _has_all(common, exchange)}
    shared = _shared(file.exchanges, common, [like for like, _ in taken.values()], forced=len(forced) == len(taken) > 0)
    overrides = dict(file.overrides)
    for name, (like, exchange) in taken.items():
        base = _effective([common, like, Terms(**shared)])
        terms = {key: value for key, value in _terms(exchange).items() if not _says(base, key, value)}
        if name in forced:
            terms.pop("properties", None)
        if terms:
            overrides[f"*:{name}"] = Terms(**_written(terms))
    exchanges = tuple(_without_shared(exchange, common, shared) for exchange in _free_names(own, taken))
    return msgspec.structs.replace(
        file, profile=best, exchanges=exchanges, overrides=overrides,
        without=tuple(e.name for e in common.exchanges if e.name not in taken), **shared,
    )  # fmt: skip


def _likeliest(file: File) -> str:
    """The community profile most exchanges of which are those of the file, properties included; else its own."""
    best, most = file.profile, 0
    for name in _COMMUNITIES.get(file.profile, ()):
        common = defaults_of(name)
        fitting = [e for e in file.exchanges if _match(e, common) and _says({"properties": common.properties or ()},
                   "properties", e.properties or ())]  # fmt: skip
        if len(fitting) > most:
            best, most = name, len(fitting)
    return best


def matched(file: File) -> list[str]:
    """The names of the exchanges a file leaves to its profile."""
    return [e.name for e in defaults_of(file.profile).exchanges if e.name not in file.without]


def layered(layers: Sequence[Terms]) -> dict[str, Any]:
    """The terms of all layers, the later ones over the earlier, as fields of an exchange."""
    return _written(_effective(layers))


def _same_suite(plain: str, community: str) -> bool:
    return community in _COMMUNITIES.get(plain, ())


def _everyone(file: File, exchange: Exchange) -> list[Terms]:
    terms = file.overrides.get(f"*:{exchange.name}")
    return [terms] if terms else []


def _full(exchange: Exchange, layers: Sequence[Terms], common: Defaults) -> Exchange:
    values = _effective(layers)
    return msgspec.structs.replace(
        exchange, **_written(values), from_role=exchange.from_role or common.from_role,
        to_role=exchange.to_role or common.to_role,
    )  # fmt: skip


def _effective(layers: Iterable[Terms]) -> dict[str, Any]:
    """Every term as the leg will have it."""
    values, retry = dict(_DEFAULTS), RetryPolicy()
    for layer in layers:
        for name, value in _terms(layer).items():
            if name == "retry":
                retry = layer.retry.over(retry)
            else:
                values[name] = value
    return {**values, "retry": retry}


def _terms(terms: Terms) -> dict[str, Any]:
    """The terms that are given, as they are compared."""
    found = {}
    for name in Terms.__struct_fields__:
        value = getattr(terms, name)
        if value is None:
            continue
        if name == "properties":
            value = tuple(PropertyRule(p) if isinstance(p, str) else p for p in value)
        elif name == "retry":
            value = value.over(RetryPolicy())
        elif name in ("max_message", "max_part"):
            value = int(value)
        found[name] = value
    return found


def _written(values: dict[str, Any]) -> dict[str, Any]:
    """Terms as a file holds them."""
    written = dict(values)
    if "retry" in written:
        written["retry"] = retry_terms(written["retry"])
    if "properties" in written:
        written["properties"] = tuple(r.name if r == PropertyRule(r.name) else r for r in written["properties"])
    return written


def retry_terms(policy: RetryPolicy) -> Retry:
    """A policy as the terms of a file; a message that is sent once needs one word."""
    if policy.count == 0:
        return Retry(count=0)
    return Retry(**{name: getattr(policy, name) for name in Retry.__struct_fields__})


def _match(exchange: Exchange, common: Defaults) -> Exchange | None:
    """The exchange of the profile that this one is, terms aside."""
    facts = (exchange.service, exchange.service_type, exchange.action)
    plain = (
        (exchange.from_role, exchange.to_role) == (common.from_role, common.to_role)
        and not exchange.agreement and exchange.mpc in (None, ns.DEFAULT_MPC) and exchange.mep == "one-way"
        and exchange.direction == "both" and exchange.parties is None
    )  # fmt: skip
    return next((e for e in common.exchanges if plain and (e.service, e.service_type, e.action) == facts), None)


def _says(base: Mapping[str, Any], name: str, value: Any) -> bool:
    """Whether the terms say this already. A property that only a version has is optional where versions meet."""
    if name != "properties":
        return base[name] == value
    return _known(base[name]) == _known(value)


def _known(rules: Iterable[str | PropertyRule]) -> dict[str, bool]:
    made = [PropertyRule(rule) if isinstance(rule, str) else rule for rule in rules]
    return {rule.name: rule.required and rule.when is None for rule in made}


def _has_all(common: Defaults, exchange: Exchange) -> bool:
    """Whether the profile declares every property of the exchange."""
    return _known(exchange.properties or ()).keys() <= _known(common.properties or ()).keys()


def _shared(
    exchanges: Sequence[Exchange], common: Defaults, likes: Sequence[Exchange], *, forced: bool
) -> dict[str, Any]:
    """The terms all exchanges have in common and the profile does not say: they go to the top."""
    shared = {}
    every = [_terms(exchange) for exchange in exchanges]
    for name in Terms.__struct_fields__:
        values = [terms.get(name) for terms in every]
        if not values or values[0] is None or any(value != values[0] for value in values):
            continue
        if name == "properties" and forced:
            continue
        bases = [_effective([common, like]) for like in likes] or [_effective([common])]
        if not all(_says(base, name, values[0]) for base in bases):
            shared[name] = values[0]
    return _written(shared)


def _without_shared(exchange: Exchange, common: Defaults, shared: dict[str, Any]) -> Exchange:
    """The exchange with only those terms that neither profile nor file say."""
    base = _effective([common, Terms(**shared)])
    own = {name: value for name, value in _terms(exchange).items() if value != base[name]}
    roles = {name: None for name in ("from_role", "to_role") if getattr(exchange, name) == getattr(common, name)}
    return msgspec.structs.replace(exchange, **dict.fromkeys(Terms.__struct_fields__) | _written(own), **roles)


def _free_names(exchanges: Sequence[Exchange], taken: Iterable[str]) -> list[Exchange]:
    """The exchanges under names that none of the profile's has that stays."""
    names = set(taken)
    made = []
    for exchange in exchanges:
        name, number = exchange.name, 2
        while name in names:
            name, number = f"{exchange.name[:60]}-{number}", number + 1
        names.add(name)
        made.append(exchange if name == exchange.name else msgspec.structs.replace(exchange, id=name))
    return made
