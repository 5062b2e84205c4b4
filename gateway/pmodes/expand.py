"""From agreement files to legs: every exchange, in every direction, with every partner.

    pmode id = FROM:TO:EXCHANGE, from who sends first to who receives; both legs of a two-way
    exchange share it. It stands in stored messages and does not depend on the order of files.

For every (From, To, AgreementRef) there is one more leg for the test service with the same
other parameters [as4 6.2 (26)]; for every partner with `updates`, legs for these (`updates`).
"""

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from gateway.as4 import ns
from gateway.as4.pmode import Leg, Party, PModeSet
from gateway.as4.profiles import PROFILES
from gateway.as4.units import AgreementRef, PartyId, Service
from gateway.config.places import dotted
from gateway.config.strict import suggestion
from gateway.errors import ConfigError
from gateway.pmodes.agreements import Agreement, Document, Exchange
from gateway.pmodes.channels import BINDINGS, addressed, refuse_channels
from gateway.pmodes.defaults import defaults_of
from gateway.pmodes.dynamic import discovery_of
from gateway.pmodes.layers import Layer, Made, merge
from gateway.pmodes.parties import ABSOLUTE_URI, ourselves, parties_of, refuse_blanks
from gateway.pmodes.patterns import Metadata
from gateway.pmodes.updates import agreed_later, update_legs


def expand(documents: Sequence[Document], *, revision: int = 0) -> PModeSet:
    """All legs of all files. Raises `ConfigError`."""
    parties = parties_of(documents)
    selves = {document.file.own: ourselves(parties[document.file.own]) for document in documents}
    legs = tuple(made.leg for made in all_made(documents, parties))
    return PModeSet(legs=legs, selves=tuple(selves.values()), revision=revision)


def all_made(documents: Sequence[Document], parties: Mapping[str, Party]) -> list[Made]:
    """Every leg of all files with what it was made from. Raises `ConfigError`."""
    made: list[Made] = []
    for document in documents:
        made += _legs(document, parties)
    made += _test_legs(made) + update_legs(made)
    made = [agreed_later(one) for one in made]
    _refuse_ambiguity(made)
    _refuse_rules(made)
    refuse_channels(made)
    return made


def _legs(document: Document, parties: Mapping[str, Party]) -> list[Made]:
    """The legs between `self` and every other party of the file, without the test service."""
    file = document.file
    try:
        common = defaults_of(file.profile)
    except ConfigError as error:
        raise ConfigError(error.detail, file=document.name, key=error.key, hint=error.hint) from None
    profile = f"profile {file.profile}"
    defaults, top = Layer(profile, common, profile), Layer("file", file, document.name)
    _refuse_unknown(file.without, [exchange.name for exchange in common.exchanges], document, "without",
                    f"profile {file.profile} has no exchange of that name")  # fmt: skip
    exchanges = [Layer(profile, exchange, profile, f"exchanges[{n}]") for n, exchange in enumerate(common.exchanges)
                 if exchange.name not in file.without]  # fmt: skip
    exchanges += [Layer("exchange", exchange, document.name, f"exchanges[{n}]")
                  for n, exchange in enumerate(file.exchanges)]  # fmt: skip
    if not exchanges:
        raise ConfigError(
            f"is missing: profile {file.profile} has none of its own", file=document.name, key="exchanges"
        )
    _refuse_same_names(exchanges, document)
    others = [name for name in file.parties if name != file.own]
    unused = set(file.overrides)
    made: list[Made] = []
    for at in exchanges:
        exchange: Exchange = at.terms
        _refuse_unknown(exchange.parties or (), others, document, f"{at.key}.parties", "is no partner of this file")
        for other in others if exchange.parties is None else exchange.parties:
            keys = [f"*:{exchange.name}", other, f"{other}:{exchange.name}"]
            unused -= set(keys)
            layers = [defaults, at, top] if at.file == profile else [defaults, top, at]
            layers += [Layer("override", file.overrides[key], document.name, dotted("overrides", key))
                       for key in keys if key in file.overrides]  # fmt: skip
            plan = Made(_leg(at, defaults, layers, document), tuple(layers), at, document)
            us, them = ourselves(parties[file.own]), parties[other]
            if exchange.direction != "receive" and (not them.pattern or file.parties[other].discovery):
                made += _between(plan, us, them)
            if exchange.direction != "send":
                made += _between(plan, them, us)
    if unused and others:
        known = [f"{other}:{at.terms.name}" for other in others for at in exchanges]
        key = sorted(unused)[0]
        raise ConfigError("meets no exchange of this file", file=document.name, key=dotted("overrides", key),
                          hint=suggestion(key, known), rule="P011")  # fmt: skip
    return made


def _refuse_unknown(names: Iterable[str], known: Sequence[str], document: Document, key: str, why: str) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(f"{name!r}: {why}", file=document.name, key=key, hint=suggestion(name, known[:60]))


def _leg(at: Layer, defaults: Layer, layers: Sequence[Layer], document: Document) -> Leg:
    """The leg of an exchange, still without parties."""
    exchange: Exchange = at.terms
    for key, text in (("service", exchange.service), ("action", exchange.action)):
        refuse_blanks(text, at.file, f"{at.key}.{key}")
    if exchange.service_type is None and not ABSOLUTE_URI.fullmatch(exchange.service):
        raise ConfigError("is missing: without a type a service must be a URI", file=at.file,
                          key=f"{at.key}.service_type")  # fmt: skip
    from_role = exchange.from_role or defaults.terms.from_role
    to_role = exchange.to_role or defaults.terms.to_role
    if not from_role or not to_role:
        raise ConfigError("is missing", file=at.file, key=f"{at.key}.{'to_role' if from_role else 'from_role'}")
    two_way = exchange.reply is not None
    nobody = Party(name="", party_id=PartyId(""))
    return Leg(
        pmode_id="", profile=document.file.profile, from_party=nobody, to_party=nobody,
        from_role=from_role, to_role=to_role,
        service=Service(exchange.service, exchange.service_type), action=exchange.action,
        agreement=_agreement(exchange.agreement, at),
        mpc=exchange.mpc or ns.DEFAULT_MPC,
        mep=ns.MEP_TWO_WAY if two_way else ns.MEP_ONE_WAY,
        mep_binding=BINDINGS[exchange.mep],
        **merge(layers),
    )  # fmt: skip


def _between(plan: Made, initiator: Party, responder: Party) -> list[Made]:
    """The leg, and for a two-way exchange its answer, with these parties."""
    leg, at = plan.leg, plan.exchange
    exchange: Exchange = at.terms
    pmode_id = f"{initiator.name}:{responder.name}:{exchange.name}"
    first = msgspec.structs.replace(
        leg, pmode_id=pmode_id, from_party=initiator, to_party=responder, mpc=addressed(leg.mpc, responder)
    )
    if exchange.reply is None:
        return [plan._replace(leg=_discovered(first, plan))]
    reply = Layer("reply", exchange.reply, at.file, f"{at.key}.reply")
    refuse_blanks(exchange.reply.action, reply.file, f"{reply.key}.action")
    layers = (*plan.layers, reply)
    answer = msgspec.structs.replace(
        first, number=2, action=exchange.reply.action,
        mpc=addressed(exchange.reply.mpc or (ns.DEFAULT_MPC if first.pulled else leg.mpc), initiator),
        from_party=responder, to_party=initiator, from_role=leg.to_role, to_role=leg.from_role,
        **merge(layers),
    )  # fmt: skip
    return [
        plan._replace(leg=_discovered(first, plan)),
        plan._replace(leg=_discovered(answer, plan), layers=layers),
    ]


def _discovered(leg: Leg, plan: Made) -> Leg:
    """The leg; where its receiver is a pattern, with what is needed to find one."""
    if leg.pulled and (leg.to_party.pattern or leg.from_party.pattern):
        at = plan.exchange
        raise ConfigError("a channel is for one party: who is not named can neither pull nor be pulled from",
                          file=at.file, key=f"{at.key}.mep")  # fmt: skip
    if not leg.to_party.pattern:
        return leg
    name, exchange = leg.to_party.name, plan.exchange.terms
    table = plan.document.file.parties[name].discovery
    if table is None:
        return leg
    key = f"{dotted('parties', name)}.discovery"
    found = discovery_of(table, exchange.metadata or Metadata(), leg.service, leg.action, plan.document, key)
    return msgspec.structs.replace(leg, discovery=found)


def _agreement(agreement: str | Agreement | None, at: Layer) -> AgreementRef | None:
    if not agreement:
        return None
    made = AgreementRef(agreement) if isinstance(agreement, str) else AgreementRef(agreement.value, agreement.type)
    if made.type is None and not ABSOLUTE_URI.fullmatch(made.value):
        raise ConfigError(
            "without a type an agreement must be a URI", file=at.file, key=f"{at.key}.agreement",
            hint='write { value = "…", type = "…" }',
        )  # fmt: skip
    return made


def _test_legs(legs: Sequence[Made]) -> list[Made]:
    """One leg for the test service for each (From, To, AgreementRef), like the first leg between them.

    The first by P-Mode id: whatever the order of files and tables, the test leg is the same.
    """
    made: dict[tuple, Made] = {}
    for first in sorted(legs, key=_order):
        leg = first.leg
        triple = (leg.from_party.party_id, leg.to_party.party_id, leg.agreement)
        name = f"{leg.from_party.name}:{leg.to_party.name}:test"
        made.setdefault(triple, first._replace(leg=msgspec.structs.replace(
            leg, pmode_id=f"{name}@{leg.agreement.value}" if leg.agreement else name,
            service=Service(ns.TEST_SERVICE), action=ns.TEST_ACTION,
            mpc=leg.mpc if leg.pulled else ns.DEFAULT_MPC, mep=ns.MEP_ONE_WAY,
            mep_binding=ns.BINDING_PULL if leg.pulled else ns.BINDING_PUSH, number=1,
        )))  # fmt: skip
    explicit = {(m.leg.from_party.party_id, m.leg.to_party.party_id, m.leg.agreement) for m in legs if m.leg.is_test}
    return [test for triple, test in made.items() if triple not in explicit]


def _order(made: Made) -> tuple:
    leg = made.leg
    # A ping is pushed where anything is; where everything is pulled, so is the ping.
    return (leg.pulled, leg.pmode_id, leg.number, leg.profile, leg.service.value, leg.service.type or "", leg.action)


def _refuse_ambiguity(made: Iterable[Made]) -> None:
    """Two legs that one and the same message would match."""
    seen: dict[tuple, Leg] = {}
    for leg, _, at, document in made:
        terms = (leg.from_party.party_id, leg.from_role, leg.to_party.party_id, leg.to_role,
                 leg.service, leg.action, leg.agreement, leg.mpc)  # fmt: skip
        if (other := seen.setdefault(terms, leg)) is not leg:
            raise ConfigError(
                f"{leg.pmode_id} (leg {leg.number}) and {other.pmode_id} (leg {other.number}) match the same messages",
                file=document.name, key=at.key if at.file == document.name else "exchanges",
                hint="they must differ in parties, roles, service, action, agreement or mpc", rule="P019",
            )  # fmt: skip


def _refuse_rules(made: Iterable[Made]) -> None:
    """`rules = "refuse"` on a profile that has none: it would be believed and do nothing."""
    for leg, layers, _, _ in made:
        if leg.rules == "refuse" and PROFILES[leg.profile].rules is None:
            layer = next(layer for layer in reversed(layers) if layer.terms.rules == "refuse")
            raise ConfigError(
                f"profile {leg.profile} has no rules to refuse by", file=layer.file, key=dotted(layer.key, "rules"),
                hint="the OOTS profiles have them",
            )  # fmt: skip


def _refuse_same_names(exchanges: Iterable[Layer], document: Document) -> None:
    names: set[str] = set()
    for at in exchanges:
        if at.terms.name in names:
            raise ConfigError(
                f"two exchanges are named {at.terms.name!r}", file=document.name, key=at.key,
                hint="give one of them an id of its own",
            )  # fmt: skip
        names.add(at.terms.name)
