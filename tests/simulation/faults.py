"""What goes wrong, when and where: everything follows from one seed.

A node that is killed does not run its `finally` blocks as a program does that ends: from that moment nothing it
does reaches anybody. `alive` is asked wherever something would: it never returns in a dead node.
"""

import asyncio
import random
from contextvars import ContextVar
from dataclasses import dataclass, field

#: The incarnation of a node that the running code belongs to; None: partners and backends.
HERE: ContextVar["Life | None"] = ContextVar("here", default=None)


class Killed(BaseException):
    """The node dies at this very point. Nothing catches it."""


class Life:
    """One incarnation of a node, from its start until it is killed."""

    def __init__(self, name: str) -> None:
        self.name, self.dead, self.paused_until = name, asyncio.Event(), 0.0

    async def alive(self) -> None:
        """Return while the node lives and runs; wait out a pause; never return in a dead one."""
        pause = self.paused_until - asyncio.get_running_loop().time()
        if pause > 0:
            await asyncio.sleep(pause)
        if self.dead.is_set():
            await asyncio.get_running_loop().create_future()


@dataclass
class Faults:
    """Probabilities of one run. `calm` ends them all."""

    random: random.Random
    trace: list[str] = field(default_factory=list)
    calm: bool = False
    lose_request: float = 0.0
    lose_answer: float = 0.0
    double: float = 0.0
    cut: float = 0.0
    refuse_commit: float = 0.0
    unknown_commit: float = 0.0
    kill_at_point: float = 0.0
    #: Until then, by name: partners that are away, and the database.
    away: dict[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, seed: int) -> "Faults":
        """The weather of a seed: some faults often, most rarely, some not at all."""
        chance = random.Random(seed)

        def some(most: float) -> float:
            return most * chance.choice((0.0, 0.0, 0.2, 1.0))

        return cls(
            random=chance, lose_request=some(0.3), lose_answer=some(0.4), double=some(0.3), cut=some(0.2),
            refuse_commit=some(0.1), unknown_commit=some(0.15), kill_at_point=some(0.01),
        )

    def strikes(self, probability: float) -> bool:
        # Drawn always, so that what comes later does not depend on what is possible now.
        return self.random.random() < probability and not self.calm

    def note(self, text: str) -> None:
        self.trace.append(f"{asyncio.get_running_loop().time() - 1000.0:9.3f} {text}")

    def is_away(self, name: str) -> bool:
        return not self.calm and self.away.get(name, 0.0) > asyncio.get_running_loop().time()
