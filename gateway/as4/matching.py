"""Find the leg of an agreement that a message belongs to [as4 2.3].

All parameters must be equal, byte for byte and types included: From and To with their
roles, Service, Action, MPC, and AgreementRef where the leg has one. A leg without an
agreement also takes messages that carry one; where both kinds fit, the leg that names the
agreement wins, and among equals the first by P-Mode id and number, so that every node
answers alike. `AgreementRef/@pmode` never matters [as4 2.2].

A message that fits nowhere gets ProcessingModeMismatch, whichever parameter is unknown
[as4 6.1 (17)]; `where` names the first one, in the order of `PARAMETERS`, up to which some
leg still agreed. Nothing here is proof: what is matched before the signature is verified
only chooses which rules and certificates apply.
"""

from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches

from msgspec import Struct

from gateway.as4 import ns
from gateway.as4.pmode import Leg, PModeSet
from gateway.as4.units import AgreementRef, PartyId, Service, UserMessage
from gateway.errors import ProcessingModeMismatch, SubmissionRefused

#: What is compared, in the order in which a mismatch is told.
PARAMETERS = (
    "eb:From/eb:PartyId", "eb:To/eb:PartyId", "eb:From/eb:Role", "eb:To/eb:Role",
    "eb:Service", "eb:Action", "eb:UserMessage/@mpc", "eb:AgreementRef",
)  # fmt: skip

#: Names looked through for a similar one; more would make a typing error expensive.
MAX_SUGGESTED_FROM = 1000


class NearMiss(Struct, frozen=True):
    """A leg that a message does not match, and the parameters (of `PARAMETERS`) in which it differs."""

    leg: Leg
    differs: tuple[str, ...]


class Matcher:
    """The legs of one `PModeSet`, indexed. Immutable like the set."""

    def __init__(self, pmodes: PModeSet) -> None:
        self._legs = tuple(sorted(pmodes.legs, key=_rank))
        self._ours = frozenset(party.party_id for party in pmodes.selves)
        self._by_terms: dict[tuple, list[Leg]] = {}
        self._by_sender: dict[PartyId, list[Leg]] = {}
        self._known: set[tuple] = set()
        for leg in self._legs:
            terms = _terms(leg)
            self._by_terms.setdefault(terms, []).append(leg)
            self._by_sender.setdefault(leg.from_party.party_id, []).append(leg)
            self._known.update(terms[:length] for length in range(1, len(terms) + 1))

    def find_leg(self, message: UserMessage) -> Leg:
        """The leg of a received message. Raises `ProcessingModeMismatch`."""
        facts = _facts(message)
        for leg in self._by_terms.get(facts, ()):
            if _agrees(leg.agreement, message.agreement_ref):
                return leg
        unknown = next((n for n in range(len(facts)) if facts[: n + 1] not in self._known), len(facts))
        raise ProcessingModeMismatch(f"no agreement with this {PARAMETERS[unknown]}", where=PARAMETERS[unknown])

    def candidates(self, message: UserMessage) -> tuple[Leg, ...]:
        """All legs on which the claimed From party sends: whose certificates may have signed."""
        return tuple(self._by_sender.get(message.from_party, ()))

    def near_misses(self, message: UserMessage, *, limit: int = 5) -> tuple[NearMiss, ...]:
        """The legs that differ least, for explaining a mismatch to an operator.

        Looks at every leg; not for the path a stranger's message takes.
        """
        facts = _facts(message)
        found = []
        for leg in self._legs:
            equal = [*(a == b for a, b in zip(_terms(leg), facts, strict=True))]
            equal.append(_agrees(leg.agreement, message.agreement_ref))
            differs = tuple(name for name, same in zip(PARAMETERS, equal, strict=True) if not same)
            if differs:
                found.append(NearMiss(leg, differs))
        return tuple(sorted(found, key=lambda miss: len(miss.differs))[:limit])

    def outbound(
        self,
        *,
        to_party: PartyId,
        action: str,
        service: Service | None = None,
        from_party: PartyId | None = None,
        agreement: AgreementRef | None = None,
    ) -> Leg:
        """The one leg a submission means.

        What is left out (None, or the type of a party, service or agreement) must follow
        from the rest. Raises `SubmissionRefused` with `field` named as in
        `plugin.Submission` and a hint: when no leg fits the nearest names, when several do
        what tells them apart.
        """
        legs = [leg for leg in self._legs if not self._ours or leg.from_party.party_id in self._ours]
        choices: list[tuple[str, object, Callable[[Leg], object]]] = [
            ("from_party", from_party, lambda leg: leg.from_party.party_id),
            ("to_party", to_party, lambda leg: leg.to_party.party_id),
            ("service", service, lambda leg: leg.service),
            ("action", action, lambda leg: leg.action),
            ("agreement_ref", agreement, lambda leg: leg.agreement),
        ]
        for field, wanted, of in choices:
            if wanted is None:
                continue
            fitting = _choose(legs, wanted, of)
            if not fitting:
                raise SubmissionRefused(
                    f"no agreement to send on has the {field} {_name(wanted)!r:.300}",
                    field=field,
                    hint=_suggest(wanted, [of(leg) for leg in legs]),
                )
            legs = fitting
        if len(legs) == 1:
            return legs[0]
        for field, _, of in choices:
            options = {_name(of(leg)) for leg in legs}
            if len(options) > 1:
                hint = f"say which {field}: {_listed(sorted(options))}"
                raise SubmissionRefused(f"several agreements fit; they differ in {field}", field=field, hint=hint)
        ids = _listed(sorted({leg.pmode_id for leg in legs}))
        raise SubmissionRefused("several agreements cover the same exchange", hint=f"keep one of {ids}")


def _terms(leg: Leg) -> tuple:
    return (
        leg.from_party.party_id, leg.to_party.party_id, leg.from_role, leg.to_role,
        leg.service, leg.action, leg.mpc,
    )  # fmt: skip


def _facts(message: UserMessage) -> tuple:
    return (
        message.from_party, message.to_party, message.from_role, message.to_role,
        message.service, message.action, ns.DEFAULT_MPC if message.mpc is None else message.mpc,
    )  # fmt: skip


def _rank(leg: Leg) -> tuple:
    """Most specific first, then an order that does not depend on how the set was loaded."""
    return (leg.agreement is None, leg.pmode_id, leg.number)


def _agrees(ours: AgreementRef | None, theirs: AgreementRef | None) -> bool:
    if ours is None:
        return True
    return theirs is not None and (ours.value, ours.type) == (theirs.value, theirs.type)


# -- what a producer wrote, more or less --------------------------------------


def _choose(legs: list[Leg], wanted: object, of: Callable[[Leg], object]) -> list[Leg]:
    """The legs whose parameter is `wanted`; without a type any type will do, if none has none."""
    exact = [leg for leg in legs if _key(of(leg)) == _key(wanted)]
    if exact or isinstance(wanted, str) or wanted.type is not None:
        return exact
    return [leg for leg in legs if (have := of(leg)) is not None and have.value == wanted.value]


def _key(value: object) -> tuple | None:
    """A parameter as it is compared: value and type, without what does not count."""
    if value is None or isinstance(value, str):
        return (value, None)
    return (value.value, value.type)


def _value(value: object) -> str:
    if value is None:
        return "none"
    return value if isinstance(value, str) else value.value


def _name(value: object) -> str:
    """How a hint writes a parameter."""
    kind = getattr(value, "type", None)
    return f"{_value(value)} (type {kind})" if kind else _value(value)


def _suggest(wanted: object, known: Iterable[object]) -> str:
    """The nearest known names, or the first few where none is near. Types do not make a name near."""
    names: dict[str, set[str]] = {}
    for value in known:
        names.setdefault(_value(value), set()).add(_name(value))
    some = sorted(names)[:MAX_SUGGESTED_FROM]
    near = get_close_matches(_value(wanted)[:255], some, n=3, cutoff=0.6)
    if not names:
        return "there is no agreement to send on"
    listed = _listed([name for value in near or some for name in sorted(names[value])])
    return f"did you mean {listed}?" if near else f"known: {listed}"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")
