"""The part of the Store protocol that keeps our own keys: material, states, and which key signs for whom.

    PLANNED → STAGED → ANNOUNCED → ACTIVE → DRAINING → RETIRED       (`states.KEY` has every move)

A key is written once: its private part sealed by the key-encryption key, or the name of an object in a
PKCS#11 token, and its certificate, which may come later (a request was signed for it meanwhile). It
has a state for each of its uses, because signing, decryption and TLS change hands at different times.

What is used is one value, the `Ring`: the state of every key in it, and the partners that are signed for with another
key than the rest. A ring is a revision of the topic `keys`, and is proposed, tested, acknowledged and made active
by every process like one of the agreements (`store.agreements`). The states and choices in the tables change in the
commit that makes it active; nothing else changes them, except that a PLANNED key may be dropped.
"""

import hashlib
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Literal, NamedTuple, Protocol

import msgspec
from msgspec import Struct

from gateway.errors import NotPossible
from gateway.store import states
from gateway.store.agreements import Revision

KeyUse = Literal["sign", "decrypt", "tls-server", "tls-client"]
KeyState = Literal["PLANNED", "STAGED", "ANNOUNCED", "ACTIVE", "DRAINING", "RETIRED"]

#: States in which a key is in the ring: every process has it open.
HELD = ("STAGED", "ANNOUNCED", "ACTIVE", "DRAINING")


class NewKey(Struct, frozen=True, kw_only=True):
    """A key to be kept. Exactly one of `sealed` and `token` is there; without `certificate` it waits for one.

    `public` is the SubjectPublicKeyInfo (DER), `algorithm` what people call it (`RSA 3072`, `Ed25519` …),
    `chain` DER certificates from the issuer upwards. `party`: None for every party of ours.
    """

    id: str
    uses: tuple[KeyUse, ...]
    algorithm: str
    public: bytes
    sealed: bytes | None = None
    token: str | None = None
    certificate: bytes | None = None
    chain: tuple[bytes, ...] = ()
    party: str | None = None


class OwnKey(NewKey, frozen=True, kw_only=True):
    """A key of ours, with its state for each use, and since when it has it. `sealed` and `token` are None once every
    use is RETIRED."""

    states: dict[KeyUse, KeyState]
    since: dict[KeyUse, datetime]
    created_at: datetime
    author: str

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the certificate in hexadecimal; of the public key while there is no certificate."""
        return hashlib.sha256(self.certificate or self.public).hexdigest()

    @property
    def kind(self) -> str:
        """`RSA`, `EC`, `Ed25519`, `X25519`: keys of one kind replace each other."""
        return self.algorithm.partition(" ")[0]

    @property
    def retired(self) -> bool:
        return set(self.states.values()) == {"RETIRED"}


class Place(Struct, frozen=True, order=True):
    """One use of one key in a ring."""

    key: str
    use: KeyUse
    state: KeyState


class Choice(Struct, frozen=True, order=True, kw_only=True):
    """Messages of `party` (empty: of any of ours) to `partner` are signed with `key`, whichever is active.

    `partner` is a party id without its type, as own parties are named. One of each kind of key may be chosen,
    as one of each kind may be active.
    """

    partner: str
    key: str
    party: str = ""
    why: str = ""


class Chosen(Choice, frozen=True, kw_only=True):
    """A choice in force."""

    since: datetime


class Ring(Struct, frozen=True, kw_only=True):
    """What a revision of the topic `keys` says. A key that is not in it is not used; one that was is RETIRED."""

    places: tuple[Place, ...] = ()
    choices: tuple[Choice, ...] = ()

    def encode(self) -> bytes:
        """The canonical form: equal rings have equal octets."""
        return msgspec.json.encode(Ring(places=tuple(sorted(self.places)), choices=tuple(sorted(self.choices))))

    @classmethod
    def decode(cls, content: bytes) -> "Ring":
        return msgspec.json.decode(content, type=cls)

    def with_states(self, wanted: Mapping[tuple[str, KeyUse], KeyState]) -> "Ring":
        """This ring with other states of some places: (key, use) → state. RETIRED leaves the ring."""
        found = {(place.key, place.use): place.state for place in self.places} | dict(wanted)
        return Ring(
            places=tuple(sorted(Place(key, use, state) for (key, use), state in found.items() if state in HELD)),
            choices=self.choices,
        )

    def with_choices(self, choices: Iterable[Choice]) -> "Ring":
        """This ring with these choices and no other."""
        return Ring(places=self.places, choices=tuple(sorted(choices)))


class Move(NamedTuple):
    """A change of state that making a ring active brings."""

    key: str
    use: KeyUse
    before: KeyState
    after: KeyState


def moves(keys: Iterable[OwnKey], ring: Ring) -> list[Move]:
    """What making `ring` active changes. Raises `NotPossible` for what `states.KEY` does not allow, and for
    keys, places and choices that are none, or are in each other's way."""
    keys = {key.id: key for key in keys}
    known = {(key.id, use): state for key in keys.values() for use, state in key.states.items()}
    wanted = {(place.key, place.use): place.state for place in ring.places}
    if len(wanted) < len(ring.places) or not set(wanted.values()) <= set(HELD):
        raise NotPossible("a ring has each use of a key once, in a state of those " + ", ".join(HELD))
    found = []
    for place in sorted(known.keys() | wanted.keys()):
        before = known.get(place)
        after = wanted.get(place, "RETIRED" if before in HELD else before)
        if before is None:
            raise NotPossible(f"there is no key {place[0]} for {place[1]}")
        if before == after:
            continue
        if after not in states.following(states.KEY, before):
            raise NotPossible(f"key {place[0]} cannot go from {before} to {after} ({place[1]})", state=before)
        found.append(Move(*place, before, after))
    for id, use in wanted:
        if keys[id].certificate is None:
            raise NotPossible(f"key {id} has no certificate yet ({use})")
    _alone("is active", [(keys[id].party or "", use, keys[id].kind if use in ("sign", "decrypt") else "")
                         for (id, use), state in wanted.items() if state == "ACTIVE"])  # fmt: skip
    for choice in ring.choices:
        if not choice.partner or not (choice.partner + choice.party + choice.why).isprintable():
            raise NotPossible("a choice names a partner, and says in printable characters why")
        if (choice.key, "sign") not in wanted:
            raise NotPossible(f"key {choice.key}, chosen for {choice.partner}, does not sign in this ring")
    _alone("is chosen", [(choice.party, choice.partner, keys[choice.key].kind) for choice in ring.choices])
    return found


def _alone(what: str, places: list[tuple[str, str, str]]) -> None:
    """Refuse two for one place."""
    for place in places:
        if places.count(place) > 1:
            raise NotPossible(f"more than one key {what} for {' '.join(filter(None, place))}")


def changes(before: Iterable[Chosen], after: Iterable[Choice]) -> tuple[list[Choice], list[Choice]]:
    """The choices that go, and those that are new or have another reason."""
    old = {(c.party, c.partner, c.key): c for c in before}
    new = {(c.party, c.partner, c.key): c for c in after}
    return (
        [old[place] for place in sorted(old.keys() - new.keys())],
        [new[place] for place in sorted(new) if place not in old or old[place].why != new[place].why],
    )


class Keys(Protocol):
    """The verbs for keys. Every one that changes something is one commit, audit included."""

    async def add_key(self, new: NewKey, *, author: str) -> OwnKey:
        """Keep a key, PLANNED for each of its uses. Raises `NotPossible` when this certificate, or this key
        without one, is there already."""
        ...

    async def complete_key(self, id: str, certificate: bytes, chain: tuple[bytes, ...], *, actor: str) -> OwnKey:
        """The certificate has come. Raises `NotFound`, `NotPossible` when there is one."""
        ...

    async def drop_key(self, id: str, *, actor: str, why: str) -> OwnKey:
        """A key that was never in a ring is RETIRED for all its uses. Raises `NotFound`, `NotPossible`."""
        ...

    async def own_keys(self) -> list[OwnKey]:
        """Every key, retired ones too, oldest first."""
        ...

    async def chosen(self) -> list[Chosen]:
        """The choices in force, by party and partner."""
        ...

    async def active_ring(self) -> Revision | None:
        """The active revision of the topic `keys`, with its content; it may take effect a little later."""
        ...
