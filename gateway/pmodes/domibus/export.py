"""Agreements as a Domibus P-Mode file, for partners and for going back.

Made from legs, so that overrides, several files and defaults of a profile are all in it. What the
grammar of Domibus 5.1 cannot say is told and not written; what it demands and agreements do not have
(retention, error handling) is written as the gateway behaves. Reading the file again gives the same legs.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from msgspec import Struct

from gateway.as4 import ns, xml
from gateway.as4.pmode import Leg, Party, PModeSet, PropertyRule
from gateway.errors import ConfigError
from gateway.pmodes.domibus import grammar
from gateway.pmodes.domibus import retry as retries
from gateway.pmodes.domibus.security import WRITTEN

#: Minutes. Agreements say nothing of it and the grammar demands it: 2.5 days, as the OOTS network has it.
_RETENTION = "3600"
_SECURITY = {
    "edelivery-as4/1.15": {"signatureMethod": "RSA_SHA256"},
    "oots/1.2": {"signatureMethod": "RSA_SHA256"},
    "oots/2.0": {"signatureMethod": "RSA_SHA256"},
    "edelivery-as4/2.0": {"profile": "ECC"},
    "edelivery-as4/2.0-ecdsa": {"profile": "ecdsa"},
}
_DEFAULT = 1 << 30


class Exported(Struct, frozen=True):
    """A P-Mode file, and what of the agreements it does not say."""

    xml: str
    notes: tuple[str, ...]


class _Sides(NamedTuple):
    """With whom a leg is: whom we send to, whom we receive from."""

    sends: list[Party]
    receives: list[Party]


class _Names:
    """Names for values that the file refers to by name, in the order they are first asked for."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._names: dict[object, str] = {}

    def of(self, value: object, wanted: str | None = None) -> str:
        if value not in self._names:
            name, number = wanted or f"{self._prefix}{len(self._names) + 1}", 2
            taken = {n.lower() for n in self._names.values()}
            base = name
            while name.lower() in taken:
                name, number = f"{base}-{number}", number + 1
            self._names[value] = name
        return self._names[value]

    def items(self) -> Iterable[tuple[object, str]]:
        return self._names.items()


def export(pmodes: PModeSet, own: str | None = None) -> Exported:
    """The P-Mode file of one of our parties, by name. Raises `ConfigError`: no such party, no legs."""
    us = _ourselves(pmodes, own)
    ours = [leg for leg in pmodes.legs if us.party_id in (leg.from_party.party_id, leg.to_party.party_id)]
    return _Export(us, ours).made()


def _ourselves(pmodes: PModeSet, own: str | None) -> Party:
    found = [party for party in pmodes.selves if own in (None, party.name)]
    if len(found) != 1:
        names = ", ".join(party.name for party in pmodes.selves)
        raise ConfigError(f"there is no party of ours {own!r}" if own else "there are several parties of ours",
                          key="--self", hint=f"ours are {names}")  # fmt: skip
    return found[0]


class _Export:
    def __init__(self, us: Party, legs: Sequence[Leg]) -> None:
        self._us = us
        self._notes: dict[str, None] = {}
        self._groups = self._grouped(legs)
        if not self._groups:
            raise ConfigError("there is nothing to export", key=us.name, hint="it has no legs with anybody")
        self._mpcs, self._roles, self._types = _Names("mpc"), _Names("role"), _Names("partyType")
        self._sets, self._securities, self._agreements = _Names("propertySet"), _Names("security"), _Names("agreement")
        self._services, self._actions, self._retries = _Names("service"), _Names("action"), _Names("awareness")
        self._sizes, self._legs = _Names("payloadProfile"), _Names("leg")

    def made(self) -> Exported:
        legs, processes = self._legs_and_processes()
        parties = self._parties()
        lines = [
            '<?xml version="1.0" encoding="UTF-8"?>',
            f"<db:configuration xmlns:db={xml.quoted(grammar.NAMESPACE)} party={xml.quoted(self._us.name)}>",
            *_indented(_block("mpcs", [_tag("mpc", name=name, qualifiedName=value, enabled="true",
                                  default="true" if value == ns.DEFAULT_MPC else "false",
                                  retention_downloaded=_RETENTION, retention_undownloaded=_RETENTION)
                             for value, name in self._mpcs.items()])),
            "  <businessProcesses>",
            *_indented(_indented([
                *_block("roles", [_tag("role", name=name, value=value) for value, name in self._roles.items()]),
                *_block("parties", parties),
                *_block("meps", [
                    _tag("mep", name="oneway", value=ns.MEP_ONE_WAY),
                    _tag("binding", name="push", value=ns.BINDING_PUSH),
                    *([_tag("binding", name="pull", value=ns.BINDING_PULL)] if self._pulls() else []),
                ]),
                *_block("properties", self._properties()),
                *self._payload_profiles(),
                *_block("securities", [_tag("security", name=name, **dict(value))
                                       for value, name in self._securities.items()]),
                *_block("errorHandlings", [_tag(
                    "errorHandling", name="errorHandling", errorAsResponse="true", businessErrorNotifyProducer="true",
                    businessErrorNotifyConsumer="true", deliveryFailureNotifyProducer="true",
                )]),
                *_block("agreements", [_tag("agreement", name=name, value=value, type=kind)
                                       for (value, kind), name in self._agreements.items()]),
                *_block("services", [_tag("service", name=name, value=value, type=kind)
                                     for (value, kind), name in self._services.items()]),
                *_block("actions", [_tag("action", name=name, value=value) for value, name in self._actions.items()]),
                *_block("as4", [
                    *(_tag("receptionAwareness", name=name, retry=value, duplicateDetection="true")
                      for value, name in self._retries.items()),
                    _tag("reliability", name="reliability", nonRepudiation="true", replyPattern="response"),
                ]),
                *_block("legConfigurations", legs),
                *processes,
            ])),
            "  </businessProcesses>",
            "</db:configuration>",
        ]  # fmt: skip
        return Exported("\n".join(lines) + "\n", tuple(self._notes))

    # -- from legs ------------------------------------------------------------------

    def _grouped(self, legs: Sequence[Leg]) -> dict[tuple, tuple[Leg, str, _Sides]]:
        """Legs that differ in their parties only, with both sides of them."""
        groups: dict[tuple, tuple[Leg, str, _Sides]] = {}
        for leg in legs:
            if leg.is_update:
                self._note("agreement updates are left out: Domibus does not know them")
                continue
            if leg.from_party.pattern or leg.to_party.pattern:
                self._note("parties that are discovered or trusted by path have no table in a P-Mode file")
                continue
            ours = leg.from_party.party_id == self._us.party_id
            name = leg.pmode_id.removeprefix(f"{leg.from_party.name}:{leg.to_party.name}:")
            if leg.number == 2:
                name = leg.action
            facts = (
                leg.service, leg.action, leg.from_role, leg.to_role, _reference(leg), leg.mpc, leg.pulled, leg.profile,
                leg.properties, leg.closed_properties, leg.compress, leg.retry, leg.signature_token, leg.max_message,
                leg.max_part,
            )  # fmt: skip
            _, _, sides = groups.setdefault(facts, (leg, name, _Sides([], [])))
            if ours:
                sides.sends.append(leg.to_party)
            else:
                sides.receives.append(leg.from_party)
            self._tell(leg, ours)
        return groups

    def _tell(self, leg: Leg, ours: bool) -> None:
        """What of a leg the file will not say."""
        if leg.mep == ns.MEP_TWO_WAY:
            self._note("two-way exchanges are written as one-way ones: Domibus does not tie their legs together")
        if leg.backend != "rest":
            self._note(f"backend {leg.backend!r}: routing is no part of a P-Mode file")
        if not retries.write(leg.retry)[1]:
            self._note(f"retry of {leg.action}: the string is the nearest there is")
        if leg.signature_token not in WRITTEN:
            self._note(f"signature_token {leg.signature_token!r}: written as bst")
        if leg.properties and not leg.closed_properties:
            self._note("properties: Domibus refuses those that are not declared")
        if any(rule.when for rule in leg.properties):
            self._note("properties of one version only: declared as optional")
        if (leg.max_message, leg.max_part) != (_DEFAULT, _DEFAULT):
            self._note("sizes: written as a payload profile with one payload, cid:message; Domibus takes no other part")
        if leg.profile.startswith("edelivery-as4/2.0"):
            self._note("eDelivery AS4 2.0: no released Domibus speaks it yet")
        partner = leg.to_party if ours else leg.from_party
        if partner.trust is not None:
            self._note(f"{partner.name}: trust by certificate path is no part of a P-Mode file")

    def _legs_and_processes(self) -> tuple[list[str], list[str]]:
        legs: list[str] = []
        processes: dict[tuple, tuple[Leg, _Sides, list[str]]] = {}
        for leg, wanted, sides in self._groups.values():
            facts = (leg.service, leg.action, leg.mpc, self._rules(leg), leg.retry, leg.compress, leg.signature_token,
                     leg.profile, leg.max_message, leg.max_part)  # fmt: skip
            fresh = facts not in dict(self._legs.items())
            name = self._legs.of(facts, "test" if leg.is_test else wanted)
            if fresh:
                legs.append(self._leg(leg, name))
            key = (leg.from_role, leg.to_role, _reference(leg), leg.pulled,
                   *(tuple(p.name for p in side) for side in sides))  # fmt: skip
            processes.setdefault(key, (leg, sides, []))[2].append(name)
        made = [self._process(number, *found) for number, found in enumerate(processes.values(), 1)]
        return legs, [line for process in made for line in process]

    def _leg(self, leg: Leg, name: str) -> str:
        rules = self._rules(leg)
        sizes = (leg.max_message, leg.max_part)
        return _tag(
            "legConfiguration", name=name,
            service=self._services.of((leg.service.value, leg.service.type)),
            action=self._actions.of(leg.action),
            security=self._securities.of(self._security(leg)),
            defaultMpc=self._mpcs.of(leg.mpc, "defaultMpc" if leg.mpc == ns.DEFAULT_MPC else None),
            receptionAwareness=self._retries.of(retries.write(leg.retry)[0]),
            reliability="reliability", errorHandling="errorHandling",
            propertySet=self._sets.of(rules) if rules else None,
            payloadProfile=self._sizes.of(sizes) if sizes != (_DEFAULT, _DEFAULT) else None,
            compressPayloads="true" if leg.compress else "false",
        )  # fmt: skip

    def _process(self, number: int, leg: Leg, sides: _Sides, legs: list[str]) -> list[str]:
        sends, receives = [p.name for p in sides.sends], [p.name for p in sides.receives]
        if leg.pulled:  # the initiator is who pulls
            sends, receives = receives, sends
        us = [self._us.name]
        initiators = (us if sends else []) + receives
        responders = (us if receives else []) + sends
        head = _tag(
            "process", name=f"process{number}", agreement=self._agreements.of(_reference(leg), _named(_reference(leg))),
            mep="oneway", binding="pull" if leg.pulled else "push",
            initiatorRole=self._roles.of(leg.from_role), responderRole=self._roles.of(leg.to_role),
        )  # fmt: skip
        return [
            head.removesuffix("/>") + ">",
            *_block("initiatorParties", [_tag("initiatorParty", name=name) for name in initiators]),
            *_block("responderParties", [_tag("responderParty", name=name) for name in responders]),
            *_block("legs", [_tag("leg", name=name) for name in legs]),
            "</process>",
        ]

    # -- what legs name ---------------------------------------------------------------

    def _parties(self) -> list[str]:
        found: dict[str, Party] = {self._us.name: self._us}
        for _, _, sides in self._groups.values():
            found |= {party.name: party for party in (*sides.sends, *sides.receives)}
        lines = []
        for party in found.values():
            kind = party.party_id.type
            identifier = _tag("identifier", partyId=party.party_id.value,
                              partyIdType=self._types.of(kind) if kind else None)  # fmt: skip
            head = _tag("party", name=party.name, endpoint=party.endpoint or "", allowChunking="false")
            lines += [head.removesuffix("/>") + ">", f"  {identifier}", "</party>"]
        # The grammar demands one type, even where nobody has any.
        types = dict(self._types.items()) or {"urn:oasis:names:tc:ebcore:partyid-type:unregistered": "partyType1"}
        return [*_block("partyIdTypes", [_tag("partyIdType", name=n, value=v) for v, n in types.items()]), *lines]

    def _rules(self, leg: Leg) -> tuple[PropertyRule, ...]:
        """The properties of a leg as the file can say them; a leg without any is open to all."""
        return tuple(PropertyRule(rule.name, rule.required and rule.when is None) for rule in leg.properties)

    def _properties(self) -> list[str]:
        keys: dict[str, bool] = {}
        corners = (PropertyRule(ns.ORIGINAL_SENDER), PropertyRule(ns.FINAL_RECIPIENT))
        sets = dict(self._sets.items()) or {corners: "unused"}  # the grammar demands one
        for rules in sets:
            for rule in rules:
                if keys.setdefault(rule.name, rule.required) != rule.required:
                    # A key stands once in the file: the laxer word is the one that loses no message.
                    keys[rule.name] = False
                    self._note(f"property {rule.name}: required in some exchanges only, written as optional")
        lines = [_tag("property", name=f"{key}Property", key=key, datatype="string", required=str(required).lower())
                 for key, required in keys.items()]  # fmt: skip
        for rules, name in sets.items():
            references = [_tag("propertyRef", property=f"{rule.name}Property") for rule in rules]
            lines += _block("propertySet", references, name=name)
        return lines

    def _payload_profiles(self) -> list[str]:
        if not dict(self._sizes.items()):
            return []
        payloads, profiles = [], []
        for (whole, part), name in self._sizes.items():
            size = str(part) if part != _DEFAULT else None
            payloads.append(_tag("payload", name=f"{name}Payload", cid="cid:message", maxSize=size, required="false"))
            profiles += _block("payloadProfile", [_tag("attachment", name=f"{name}Payload")], name=name,
                               maxSize=str(whole if whole != _DEFAULT else 0))  # fmt: skip
        return _block("payloadProfiles", [*payloads, *profiles])

    def _security(self, leg: Leg) -> tuple[tuple[str, str], ...]:
        policy = WRITTEN.get(leg.signature_token, WRITTEN["bst"])
        return tuple({"policy": policy, **_SECURITY[leg.profile.removesuffix("-two-corner")]}.items())

    def _pulls(self) -> bool:
        return any(leg.pulled for leg, _, _ in self._groups.values())

    def _note(self, text: str) -> None:
        self._notes[text] = None


def _reference(leg: Leg) -> tuple[str, str]:
    return (leg.agreement.value, leg.agreement.type or "") if leg.agreement else ("", "")


def _named(reference: tuple[str, str]) -> str | None:
    return None if reference[0] else "agreementEmpty"


def _tag(element: str, /, **attributes: str | None) -> str:
    given = "".join(f" {key}={xml.quoted(value)}" for key, value in attributes.items() if value is not None)
    return f"<{element}{given}/>"


def _block(element: str, lines: Sequence[str], /, **attributes: str) -> list[str]:
    return [_tag(element, **attributes).removesuffix("/>") + ">", *_indented(lines), f"</{element}>"]


def _indented(lines: Iterable[str]) -> list[str]:
    return [f"  {line}" for line in lines]


