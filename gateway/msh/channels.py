"""Message partition channels: what is pulled, by whom, from whom [as4 4.6].

A channel is one MPC between two parties. It belongs to the one that receives; whoever asks
for its messages must have signed with a certificate that the agreement pins for that very
party. All legs that share a channel have one profile, so that one signature serves them all.
"""

from collections.abc import Iterator

from msgspec import Struct

from gateway.as4.pmode import Leg, Party, PModeSet
from gateway.as4.units import PartyId


def party_key(party: PartyId) -> str:
    """How a party is written in keys of the store: type and value, unambiguous."""
    return f"{party.type}:{party.value}" if party.type else party.value


def channel_key(leg: Leg) -> str:
    """How the channel of a leg is written there: From, To and MPC. None of them has a blank in it."""
    return f"{party_key(leg.from_party.party_id)} {party_key(leg.to_party.party_id)} {leg.mpc}"


class Channel(Struct, frozen=True):
    """One MPC from the party that holds its messages to the one that pulls them. `leg` is the first of its legs."""

    mpc: str
    leg: Leg

    @property
    def key(self) -> str:
        return channel_key(self.leg)

    @property
    def holder(self) -> Party:
        return self.leg.from_party

    @property
    def puller(self) -> Party:
        return self.leg.to_party


class Channels:
    """The channels of one P-Mode set. Immutable like the set."""

    def __init__(self, pmodes: PModeSet) -> None:
        #: Those we pull from, by key.
        self.pulled: dict[str, Channel] = {}
        self._held: dict[str, list[Channel]] = {}
        for channel in _channels(pmodes):
            if pmodes.is_self(channel.puller.party_id):
                self.pulled[channel.key] = channel
            else:
                self._held.setdefault(channel.mpc, []).append(channel)

    def authorised(self, mpc: str, signer: bytes) -> tuple[Channel, ...]:
        """The channels `mpc` that parties of ours hold for the one with the certificate `signer`."""
        return tuple(channel for channel in self._held.get(mpc, ()) if signer in channel.puller.signing)


def _channels(pmodes: PModeSet) -> Iterator[Channel]:
    seen = set()
    for leg in pmodes.legs:
        if leg.pulled and (key := channel_key(leg)) not in seen:
            seen.add(key)
            yield Channel(leg.mpc, leg)
