"""Which partners are ready for our next signing certificate: a test message signed with it, read precisely.

    green     a receipt came back, signed by the partner, over what was signed with the next key
    amber     the partner refuses the next certificate, and takes the one in use: it stays on the old one
    unknown   anything else: no connection, no answer in time, an error that says nothing about certificates

An error alone does not say that a certificate is at fault. Products name the same cause EBMS:0101, 0102, 0103
or 0004 [as4 2.9], and all of these have other causes, too. So whoever answers the next key with one of them is
asked once more with the key in use: only if that is receipted is it the certificate.

Who answered has to be known as well. Many products leave the Error unsigned when they cannot trust a
message; such an error counts where TLS vouches for the server that said it. Over plain HTTP anybody on
the way can say it, and the verdict is unknown [threats J04].
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Literal

from msgspec import Struct

from gateway.as4.pmode import Leg, Party, PModeSet
from gateway.as4.profiles import PROFILES
from gateway.as4.wss.keys import SigningKey
from gateway.errors import NotFound
from gateway.msh.rooms import Rooms, party_key
from gateway.operate.ping import Ping, legs_to, ping

Verdict = Literal["green", "amber", "unknown"]

#: How products say that they do not take a signature [as4 2.9, product deviations].
REFUSALS = frozenset({"EBMS:0101", "EBMS:0102", "EBMS:0103", "EBMS:0004"})


class Answered(Struct, frozen=True, kw_only=True):
    """How one partner took the next certificate. `partner` is its key in the store, `party` its name.

    `proof` says what vouches for the answer (see `Ping`), `why` the verdict in words, `todo` what is to be done by
    whom.
    """

    partner: str
    party: str
    verdict: Verdict
    why: str
    todo: str = ""
    code: str | None = None
    detail: str | None = None
    proof: str | None = None
    ms: float = 0.0


def askable(pmodes: PModeSet, party: str | None = None) -> dict[str, list[Leg]]:
    """The test-service legs of our `party`, or of any, by partner's key in the store.

    Partners that only pull from us, or are discovered for each message, cannot be asked and are not there.
    """
    try:
        legs = legs_to(pmodes, None)
    except NotFound:
        return {}
    found: dict[str, list[Leg]] = {}
    for leg in legs:
        if party in (None, leg.from_party.party_id.value):
            found.setdefault(party_key(leg.to_party.party_id), []).append(leg)
    return found


async def ask_all(
    rooms: Rooms, asked: dict[str, list[Leg]], key: SigningKey, *, parallel: int
) -> AsyncIterator[Answered]:
    """Ask the partners, `parallel` at once, and give each answer as it comes: one that is slow holds up nobody, but
    takes a place until its time is over."""
    gate = asyncio.Semaphore(parallel)

    async def one(legs: list[Leg]) -> Answered:
        async with gate:
            return await ask(rooms, legs, key)

    tasks = [asyncio.create_task(one(legs)) for legs in asked.values()]
    try:
        for done in asyncio.as_completed(tasks):
            yield await done
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def ask(rooms: Rooms, legs: Sequence[Leg], key: SigningKey) -> Answered:
    """One partner, under every agreement whose profile the key signs for; the worst answer counts."""
    legs = [leg for leg in legs if PROFILES[leg.profile].send_signature == key.algorithm]
    found = [await _ask(rooms, leg, key) for leg in legs]
    return max(found, key=lambda answered: ("green", "unknown", "amber").index(answered.verdict))


async def _ask(rooms: Rooms, leg: Leg, key: SigningKey) -> Answered:
    answer = await ping(rooms, leg, key=key)
    if answer.result == "ok":
        return _answered(leg, answer, "green", "a receipt came back, signed by the partner")
    if answer.proof is None:
        return _answered(leg, answer, "unknown", "no answer that is AS4", _fix(answer))
    if answer.code not in REFUSALS:
        return _answered(leg, answer, "unknown", f"{answer.code} says nothing about the certificate", _fix(answer))
    if answer.proof == "none":
        return _answered(
            leg, answer, "unknown", f"{answer.code} was not signed and came over plain HTTP: anybody may have said it",
            f"ask {leg.to_party.name} whether it has the certificate; use https",
        )  # fmt: skip
    control = await ping(rooms, leg)
    if control.result == "ok":
        return _answered(
            leg, answer, "amber", f"it refuses this certificate ({answer.code}) and takes the one in use",
            f"{leg.to_party.name} must trust the new certificate: `gateway certs announce`, then ask again",
        )  # fmt: skip
    return _answered(
        leg, answer, "unknown", f"{answer.code}, but the certificate in use is not taken either ({control.code})",
        _fix(control),
    )  # fmt: skip


def _answered(leg: Leg, answer: Ping, verdict: Verdict, why: str, todo: str = "") -> Answered:
    party: Party = leg.to_party
    return Answered(
        partner=party_key(party.party_id), party=party.name, verdict=verdict, why=why, todo=todo, code=answer.code,
        detail=answer.detail, proof=answer.proof, ms=answer.ms,
    )  # fmt: skip


def _fix(answer: Ping) -> str:
    """What the explanation catalogue says is to be done."""
    return answer.explanation.fix if answer.explanation is not None else ""
