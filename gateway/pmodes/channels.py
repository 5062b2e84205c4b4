"""What is pulled, by whom: the rules for message partition channels in agreements [as4 4.6].

An MPC that is pulled has a name of its own and belongs to the one party that receives; "{to}" in
it stands for that party's id, so that one exchange can serve many partners.
"""

from collections.abc import Iterable

from gateway.as4 import ns
from gateway.as4.pmode import Leg, Party
from gateway.as4.units import PartyId
from gateway.errors import ConfigError
from gateway.pmodes.layers import Made
from gateway.pmodes.parties import ABSOLUTE_URI

#: PMode.MEPbinding for the words of `Exchange.mep`.
BINDINGS = {
    "one-way": ns.BINDING_PUSH,
    "one-way-pull": ns.BINDING_PULL,
    "two-way-push-and-push": ns.BINDING_PUSH_AND_PUSH,
    "two-way-push-and-pull": ns.BINDING_PUSH_AND_PULL,
    "two-way-pull-and-push": ns.BINDING_PULL_AND_PUSH,
}
#: Seconds. Below, a partner is asked for ever; above, nobody remembers.
SHORTEST, LONGEST = 0.1, 86_400.0


def addressed(mpc: str, to: Party) -> str:
    """The MPC for messages to that party."""
    return mpc.replace("{to}", to.party_id.value)


def refuse_channels(made: Iterable[Made]) -> None:
    """What cannot be pulled, or would let one party fetch what is for another. Raises `ConfigError`."""
    owners: dict[str, PartyId] = {}
    firsts: dict[tuple, Leg] = {}
    for one in made:
        leg = one.leg
        if not leg.pulled:
            continue
        if leg.mpc == ns.DEFAULT_MPC or not ABSOLUTE_URI.fullmatch(leg.mpc):
            raise _fault(one, "mpc", "what is pulled needs a channel of its own, and its name is a URI",
                         'for one channel a party: mpc = "urn:example:mpc:{to}"')  # fmt: skip
        if leg.from_party.pattern or leg.to_party.pattern:
            raise _fault(one, "mep", "who is discovered, or trusted by path, can neither pull nor be pulled from")
        if leg.to_party.name == one.document.file.own and leg.from_party.endpoint is None:
            raise _fault(one, "mep", f"we pull from {leg.from_party.name}, and it has no endpoint")
        if leg.to_party.name != one.document.file.own and not leg.to_party.signing:
            raise _fault(one, "mep", f"{leg.to_party.name} pulls, and has no pinned certificate to know it by")
        if not SHORTEST <= leg.pull_every <= LONGEST:
            raise _fault(one, "pull_every", "expected a tenth of a second to a day")
        if owners.setdefault(leg.mpc, leg.to_party.party_id) != leg.to_party.party_id:
            raise _fault(one, "mpc", f"{leg.mpc} is pulled by two parties",
                         'a channel belongs to one party; write "{to}" into its name')  # fmt: skip
        channel = (leg.from_party.party_id, leg.to_party.party_id, leg.mpc)
        if firsts.setdefault(channel, leg).profile != leg.profile:
            raise _fault(one, "mpc", f"{leg.mpc} has exchanges of two profiles", "one PullRequest has one signature")


def _fault(one: Made, key: str, text: str, hint: str = "") -> ConfigError:
    at = one.exchange
    inside = at.file == one.document.name
    where = f"{at.key}.reply" if one.leg.number == 2 and key == "mpc" else at.key
    return ConfigError(text, file=one.document.name, key=f"{where}.{key}" if inside else "exchanges", hint=hint)
