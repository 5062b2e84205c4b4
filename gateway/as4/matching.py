"""Find the leg of an agreement that a message belongs to [as4 2.3].

All parameters must be equal, byte for byte and types included: From and To with their
roles, Service, Action, MPC, and AgreementRef where the leg has one. A leg without an
agreement also takes messages that carry one; where both kinds fit, the leg that names the
agreement wins, and among equals the first by P-Mode id and number, so that every node
answers alike. `AgreementRef/@pmode` never matters [as4 2.2].

A leg with a party that is a pattern takes every partner of that type which no other leg names:
whoever has a leg of its own is never matched by a pattern, neither in what it sends nor in
what is sent to it, so that a pattern can never soften what was agreed with somebody [as4 4.9].

A message that fits nowhere gets ProcessingModeMismatch, whichever parameter is unknown
[as4 6.1 (17)]; `where` names the first one, in the order of `PARAMETERS`, up to which some
leg still agreed. Nothing here is proof: what is matched before the signature is verified
only chooses which rules and certificates apply.
"""

from collections.abc import Callable, Iterable, Sequence
from difflib import get_close_matches

from msgspec import Struct

from gateway.as4 import ns
from gateway.as4.pmode import Leg, Party, PModeSet
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
        self._by_sender: dict[PartyId | tuple, list[Leg]] = {}
        self._known: set[tuple] = set()
        self._patterns = any(leg.from_party.pattern or leg.to_party.pattern for leg in self._legs)
        for leg in self._legs:
            terms = _terms(leg)
            self._by_terms.setdefault(terms, []).append(leg)
            self._by_sender.setdefault(_key_of(leg.from_party), []).append(leg)
            self._known.update(terms[:length] for length in range(1, len(terms) + 1))
        #: Parties with a leg of their own, our own included: no pattern stands for them.
        self.named = self._ours.union(
            party.party_id for leg in self._legs for party in (leg.from_party, leg.to_party) if not party.pattern
        )
        self._answering: dict[tuple, Leg | None] = {}
        for leg in self._legs:
            us, partner = self._sides(leg)
            for key in _nearness(_key_of(partner), us.party_id):
                first = self._answering.setdefault(key, leg)
                if first is not None and self._sides(first)[0].party_id != us.party_id:
                    self._answering[key] = None

    def find_leg(self, message: UserMessage) -> Leg:
        """The leg of a received message. Raises `ProcessingModeMismatch`."""
        facts = _facts(message)
        for leg in self._by_terms.get(facts, ()):
            if _agrees(leg, message.agreement_ref):
                return leg
        # Only now: who is named in an agreement pays nothing for those who are not.
        others = self._as_patterns(facts) if self._patterns else []
        for other in others:
            for leg in self._by_terms.get(other, ()):
                if _agrees(leg, message.agreement_ref):
                    return leg
        unknown = max(map(self._unknown, [facts, *others]))
        raise ProcessingModeMismatch(f"no agreement with this {PARAMETERS[unknown]}", where=PARAMETERS[unknown])

    def _as_patterns(self, facts: tuple) -> list[tuple]:
        """The facts as a leg with a pattern has them: for the sender, for the receiver."""
        sender, receiver, *rest = facts
        found = []
        if sender not in self.named:
            found.append((_pattern(sender), receiver, *rest))
        if receiver not in self.named:
            found.append((sender, _pattern(receiver), *rest))
        return found

    def _unknown(self, facts: tuple) -> int:
        """The place in `PARAMETERS` up to which some leg agrees."""
        return next((n for n in range(len(facts)) if facts[: n + 1] not in self._known), len(facts))

    def candidates(self, message: UserMessage) -> tuple[Leg, ...]:
        """All legs on which the claimed From party sends: whose certificates may have signed."""
        sender = message.from_party
        return tuple(self._by_sender.get(sender if sender in self.named else _pattern(sender), ()))

    def answering(self, claimed: UserMessage | None) -> Leg | None:
        """The leg whose party of ours, and whose suite, answer what fits no leg: the nearest to the parties
        that a message names. None where they could be several of ours; then nobody signs [as4 4.4].
        """
        keys = [(None, None)]
        if claimed is not None:
            sender = claimed.from_party
            keys = _nearness(sender if sender in self.named else _pattern(sender), claimed.to_party)
        return next((self._answering[key] for key in keys if key in self._answering), None)

    def _sides(self, leg: Leg) -> tuple[Party, Party]:
        """(our party, the partner) of a leg."""
        ours = leg.to_party.party_id in self._ours or leg.from_party.party_id not in self._ours
        return (leg.to_party, leg.from_party) if ours else (leg.from_party, leg.to_party)

    def differs(self, leg: Leg, message: UserMessage) -> tuple[str, ...]:
        """The parameters (of `PARAMETERS`) in which a message is not as a leg has it; none: it fits."""
        facts = _facts(message)
        equal = [*(a == b for a, b in zip(_terms(leg), facts, strict=True))]
        for place, party in enumerate((leg.from_party, leg.to_party)):
            if party.pattern:
                equal[place] = facts[place] not in self.named and _pattern(facts[place]) == _key_of(party)
        equal.append(_agrees(leg, message.agreement_ref))
        return tuple(name for name, same in zip(PARAMETERS, equal, strict=True) if not same)

    def near_misses(self, message: UserMessage, *, limit: int = 5) -> tuple[NearMiss, ...]:
        """The legs that differ least, for explaining a mismatch to an operator.

        Looks at every leg; not for the path a stranger's message takes.
        """
        found = [NearMiss(leg, differs) for leg in self._legs if (differs := self.differs(leg, message))]
        return tuple(sorted(found, key=lambda miss: len(miss.differs))[:limit])

    def outbound(
        self,
        *,
        to_party: PartyId | None,
        action: str,
        service: Service | None = None,
        from_party: PartyId | None = None,
        agreement: AgreementRef | None = None,
    ) -> Leg:
        """The one leg a submission means.

        What is left out (None, or the type of a party, service or agreement) must follow
        from the rest. Without a receiver, or with one that no agreement names, the leg is one whose
        receiver is discovered; its `to_party` is a pattern. Raises `SubmissionRefused` with `field` named as in
        `plugin.Submission` and a hint: when no leg fits the nearest names, when several do
        what tells them apart.
        """
        legs = [leg for leg in self._legs if not self._ours or leg.from_party.party_id in self._ours]
        open_to_all = [leg for leg in legs if leg.to_party.pattern and leg.discovery is not None]
        legs = [leg for leg in legs if not leg.to_party.pattern]
        if to_party is None or not _choose(legs, to_party, lambda leg: leg.to_party.party_id):
            found = [leg for leg in open_to_all if _may_be(to_party, leg.to_party.party_id)]
            if found and (to_party is None or to_party not in self.named):
                legs, to_party = found, None
            elif to_party is None:
                raise SubmissionRefused(
                    "the receiver is missing", field="to_party", hint="no agreement lets a receiver be discovered"
                )
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
        # What may be pushed or pulled is pushed, as with other products.
        pushed = [leg for leg in legs if not leg.pulled]
        if len(pushed) == 1:
            return pushed[0]
        ids = _listed(sorted({leg.pmode_id for leg in legs}))
        raise SubmissionRefused("several agreements cover the same exchange", hint=f"keep one of {ids}")


def _nearness(partner: object, us: PartyId) -> list[tuple]:
    """Who may be meant by a message between these two, the nearest first."""
    return [(partner, us), (partner, None), (None, us), (None, None)]


def _pattern(party: PartyId) -> tuple[str | None]:
    """How a pattern stands where a party id would: by its type, and as no message can spell it."""
    return (party.type,)


def _key_of(party: Party) -> PartyId | tuple[str | None]:
    return _pattern(party.party_id) if party.pattern else party.party_id


def _may_be(party: PartyId | None, pattern: PartyId) -> bool:
    return party is None or party.type is None or party.type == pattern.type


def _terms(leg: Leg) -> tuple:
    return (
        _key_of(leg.from_party), _key_of(leg.to_party), leg.from_role, leg.to_role,
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


def _agrees(leg: Leg, theirs: AgreementRef | None) -> bool:
    if leg.agreement is None:
        return True
    return theirs is not None and any(
        (ours.value, ours.type) == (theirs.value, theirs.type) for ours in (leg.agreement, *leg.also)
    )


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
