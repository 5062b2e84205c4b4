"""From agreement files to legs: every exchange, in every direction, with every partner.

    pmode id = FROM:TO:EXCHANGE, from the initiator to the responder; both legs of a two-way
    exchange share it. It stands in stored messages and does not depend on the order of files.

For every (From, To, AgreementRef) there is one more leg for the test service with the same
other parameters [as4 6.2 (26)].
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from gateway.as4 import ns
from gateway.as4.pmode import Leg, Party, PModeSet, PropertyRule, RetryPolicy
from gateway.as4.units import AgreementRef, PartyId, Service
from gateway.config.strict import Size, suggestion
from gateway.errors import ConfigError
from gateway.pmodes.agreements import Agreement, Defaults, Document, Exchange, Reply, Terms
from gateway.pmodes.defaults import defaults_of
from gateway.pmodes.parties import ABSOLUTE_URI, ourselves, parties_of, refuse_blanks


def expand(documents: Sequence[Document], *, certs: Path | None = None, revision: int = 0) -> PModeSet:
    """All legs of all files. Raises `ConfigError`."""
    parties = parties_of(documents, certs)
    legs: list[Leg] = []
    for document in documents:
        legs += _legs(document, parties)
    legs += _test_legs(legs)
    _refuse_ambiguity(legs)
    selves = {document.file.own: ourselves(parties[document.file.own]) for document in documents}
    return PModeSet(legs=tuple(legs), selves=tuple(selves.values()), revision=revision)


def _legs(document: Document, parties: Mapping[str, Party]) -> list[Leg]:
    """The legs between `self` and every other party of the file, without the test service."""
    file = document.file
    try:
        defaults = defaults_of(file.profile)
    except ConfigError as error:
        raise ConfigError(error.detail, file=document.name, key=error.key, hint=error.hint) from None
    exchanges = [(exchange, True) for exchange in defaults.exchanges]
    exchanges += [(exchange, False) for exchange in file.exchanges]
    if not exchanges:
        raise ConfigError(
            f"is missing: profile {file.profile} has none of its own", file=document.name, key="exchanges"
        )
    _refuse_same_names([exchange for exchange, _ in exchanges], document)
    others = [name for name in file.parties if name != file.own]
    unused = set(file.overrides)
    legs = []
    for exchange, of_profile in exchanges:
        for other in others:
            keys = [f"*:{exchange.name}", other, f"{other}:{exchange.name}"]
            unused -= set(keys)
            layers: list[Terms] = [defaults, exchange, file] if of_profile else [defaults, file, exchange]
            layers += [file.overrides[key] for key in keys if key in file.overrides]
            leg = _leg(exchange, defaults, layers, document)
            us, them = ourselves(parties[file.own]), parties[other]
            if exchange.direction != "receive":
                legs += _between(leg, us, them, exchange, layers, document)
            if exchange.direction != "send":
                legs += _between(leg, them, us, exchange, layers, document)
    if unused and others:
        known = [f"{other}:{exchange.name}" for other in others for exchange, _ in exchanges]
        key = sorted(unused)[0]
        raise ConfigError("meets no exchange of this file", file=document.name, key=f'overrides."{key}"',
                          hint=suggestion(key, known))  # fmt: skip
    return legs


def _leg(exchange: Exchange, defaults: Defaults, layers: Sequence[Terms], document: Document) -> Leg:
    """The leg of an exchange, still without parties."""
    where = f"exchanges ({exchange.name})"
    for key, text in (("service", exchange.service), ("action", exchange.action)):
        refuse_blanks(text, document, f"{where}.{key}")
    if exchange.service_type is None and not ABSOLUTE_URI.fullmatch(exchange.service):
        raise ConfigError("is missing: without a type a service must be a URI", file=document.name,
                          key=f"{where}.service_type")  # fmt: skip
    from_role, to_role = exchange.from_role or defaults.from_role, exchange.to_role or defaults.to_role
    if not from_role or not to_role:
        raise ConfigError("is missing", file=document.name, key=f"{where}.{'to_role' if from_role else 'from_role'}")
    two_way = exchange.reply is not None
    nobody = Party(name="", party_id=PartyId(""))
    return Leg(
        pmode_id="", profile=document.file.profile, from_party=nobody, to_party=nobody,
        from_role=from_role, to_role=to_role,
        service=Service(exchange.service, exchange.service_type), action=exchange.action,
        agreement=_agreement(exchange.agreement, document, where),
        mpc=exchange.mpc or ns.DEFAULT_MPC,
        mep=ns.MEP_TWO_WAY if two_way else ns.MEP_ONE_WAY,
        mep_binding=ns.BINDING_PUSH_AND_PUSH if two_way else ns.BINDING_PUSH,
        properties=_rules(defaults.properties if exchange.properties is None else exchange.properties),
        **_terms(layers, document),
    )  # fmt: skip


def _between(
    leg: Leg, initiator: Party, responder: Party, exchange: Exchange, layers: Sequence[Terms],
    document: Document,
) -> list[Leg]:  # fmt: skip
    """The leg, and for a two-way exchange its answer, with these parties."""
    pmode_id = f"{initiator.name}:{responder.name}:{exchange.name}"
    first = msgspec.structs.replace(leg, pmode_id=pmode_id, from_party=initiator, to_party=responder)
    if exchange.reply is None:
        return [first]
    reply: Reply = exchange.reply
    refuse_blanks(reply.action, document, f"exchanges ({exchange.name}).reply.action")
    answer = msgspec.structs.replace(
        first, number=2, action=reply.action,
        from_party=responder, to_party=initiator, from_role=leg.to_role, to_role=leg.from_role,
        **_terms([*layers, reply], document),
    )  # fmt: skip
    return [first, answer]


def _terms(layers: Iterable[Terms], document: Document) -> dict:
    """The values of all levels, the later ones over the earlier."""
    values: dict = {}
    retry = RetryPolicy()
    for layer in layers:
        for name in Terms.__struct_fields__:
            if (value := getattr(layer, name)) is None:
                continue
            if name != "retry":
                values[name] = int(value) if isinstance(value, Size) else value
                continue
            try:
                retry = value.over(retry)
            except ValueError as error:
                raise ConfigError(str(error).removeprefix("retry: "), file=document.name, key="retry") from None
    return {**values, "retry": retry}


def _rules(properties: Iterable[str | PropertyRule]) -> tuple[PropertyRule, ...]:
    return tuple(PropertyRule(p) if isinstance(p, str) else p for p in properties)


def _agreement(agreement: str | Agreement | None, document: Document, where: str) -> AgreementRef | None:
    if not agreement:
        return None
    made = AgreementRef(agreement) if isinstance(agreement, str) else AgreementRef(agreement.value, agreement.type)
    if made.type is None and not ABSOLUTE_URI.fullmatch(made.value):
        raise ConfigError(
            "without a type an agreement must be a URI", file=document.name, key=f"{where}.agreement",
            hint='write { value = "…", type = "…" }',
        )  # fmt: skip
    return made


def _test_legs(legs: Sequence[Leg]) -> list[Leg]:
    """One leg for the test service for each (From, To, AgreementRef), like the first leg between them."""
    made: dict[tuple, Leg] = {}
    for leg in legs:
        triple = (leg.from_party.party_id, leg.to_party.party_id, leg.agreement)
        name = f"{leg.from_party.name}:{leg.to_party.name}:test"
        made.setdefault(triple, msgspec.structs.replace(
            leg, pmode_id=f"{name}@{leg.agreement.value}" if leg.agreement else name,
            service=Service(ns.TEST_SERVICE), action=ns.TEST_ACTION,
            mpc=ns.DEFAULT_MPC, mep=ns.MEP_ONE_WAY, mep_binding=ns.BINDING_PUSH, number=1,
        ))  # fmt: skip
    explicit = {(leg.from_party.party_id, leg.to_party.party_id, leg.agreement) for leg in legs if leg.is_test}
    return [leg for triple, leg in made.items() if triple not in explicit]


def _refuse_ambiguity(legs: Iterable[Leg]) -> None:
    """Two legs that one and the same message would match."""
    seen: dict[tuple, Leg] = {}
    for leg in legs:
        terms = (leg.from_party.party_id, leg.from_role, leg.to_party.party_id, leg.to_role,
                 leg.service, leg.action, leg.agreement, leg.mpc)  # fmt: skip
        if (other := seen.setdefault(terms, leg)) is not leg:
            raise ConfigError(
                f"{leg.pmode_id} (leg {leg.number}) and {other.pmode_id} (leg {other.number}) match the same messages",
                key="exchanges", hint="they must differ in parties, roles, service, action, agreement or mpc",
            )  # fmt: skip


def _refuse_same_names(exchanges: Iterable[Exchange], document: Document) -> None:
    names: set[str] = set()
    for exchange in exchanges:
        if exchange.name in names:
            raise ConfigError(
                f"two exchanges are named {exchange.name!r}", file=document.name, key="exchanges",
                hint="give one of them an id of its own",
            )  # fmt: skip
        names.add(exchange.name)
