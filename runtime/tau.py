"""How many iterations a round has: a number, a schedule over the iterations, or chosen while it runs."""

import dataclasses
import math
import re
import statistics
from typing import Self

from ..errors import UsageError

AUTO = "auto"
# What `auto` begins with, before it has measured anything; spark (...)'s own default.
FIRST = 50
SHARE = 0.1
# Iterations without an average beyond which `auto` does not go, however slow averaging is.
MOST = 10_000


@dataclasses.dataclass(frozen=True)
class Tau:
    """Pairs of an iteration and the tau from there on, as "50,1000:100" has them; the first iteration is 0.

    A round has the tau of its first iteration. Raises UsageError for pairs that make no sense.
    """

    pairs: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        starts = [start for start, _ in self.pairs]
        if not starts or starts[0] != 0 or starts != sorted(set(starts)) or any(tau < 1 for _, tau in self.pairs):
            raise UsageError(
                f"tau {self}: a whole number from 1 up is wanted, or a schedule such as 50,1000:100 (50 iterations "
                "between two averages, from iteration 1000 on 100), or auto"
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """The schedule that `text` writes; raises UsageError."""
        found = [re.fullmatch(r"\s*(?:(\d+)\s*:)?\s*(-?\d+)\s*", part) for part in text.split(",")]
        if not all(found) or any(match[1] is None for match in found[1:] if match):
            raise UsageError(f"tau {text!r}: a number, a schedule such as 50,1000:100, or auto is wanted")
        return cls(tuple((int(match[1] or 0), int(match[2])) for match in found if match))

    def __str__(self) -> str:
        return ",".join(f"{start}:{tau}" if start else f"{tau}" for start, tau in self.pairs)

    def at(self, iteration: int) -> int:
        """The tau of a round that begins at `iteration`."""
        return [tau for start, tau in self.pairs if start <= iteration][-1]

    def iterations(self, rounds: int, begin: int = 0) -> int:
        """The iteration at which `rounds` rounds from `begin` on end."""
        for start, tau in self._from(begin):
            in_time = rounds if start is None else min(rounds, max(0, -(-(start - begin) // tau)))
            begin, rounds = begin + in_time * tau, rounds - in_time
        return begin

    def rounds(self, end: int, begin: int = 0) -> int:
        """The rounds from iteration `begin` to `end`, the last of which may be cut there."""
        count = 0
        for start, tau in self._from(begin):
            stop = end if start is None else min(start, end)
            in_time = max(0, -(-(stop - begin) // tau))
            begin, count = begin + in_time * tau, count + in_time
        return count

    def then(self, iteration: int, tau: int) -> "Tau":
        """What it is up to `iteration`, and `tau` from there on."""
        kept = tuple(pair for pair in self.pairs if pair[0] < iteration)
        return Tau((*kept, (iteration, tau)))

    def _from(self, begin: int) -> list[tuple[int | None, int]]:
        """From `begin` on: each tau, and where the next one begins (None: nowhere)."""
        nexts = [*(start for start, _ in self.pairs[1:]), None]
        return [(end, tau) for end, (_, tau) in zip(nexts, self.pairs, strict=True) if end is None or end > begin]


class AutoTau:
    """Keeps averaging at about a `share` of the time: chooses tau by the times of the rounds before.

    A round of tau iterations takes tau c + a seconds, c for an iteration and a for its average, so that averaging takes
    a / (tau c + a) of it. Of both the medians over the last rounds are taken, since single rounds are disturbed by
    whatever else the machines do; a leg's first round, which its beginning makes longer, has a median of its own, and
    counts as often as there were such rounds. As averaging less often costs accuracy, tau is no larger than it has to
    be; it stays where it is as long as it is about right, and moves by a factor of 4 at most, until rounds of that
    length have been measured.

    tau    the schedule of all choices: given as --tau, it repeats the run
    after  rounds after which to choose again: few after a change, more and more while there is none
    """

    WINDOW = 12
    FEW, MANY = 4, 32
    ABOUT = 1.25

    def __init__(self, tau: Tau, share: float) -> None:
        self.tau = tau
        self.share = share
        self.after = self.FEW
        self._times: list[tuple[float, float, bool]] = []
        self._warm = False

    def measure(self, steps: int, training: float, averaging: float, begins: bool = False) -> None:
        """Takes note of a round of `steps` iterations, its seconds of training and of averaging; `begins`: a leg.

        The first one after a start does not count: engines allocate and compile in it.
        """
        if not self._warm:
            self._warm = True
            return
        self._times = [*self._times[1 - self.WINDOW :], (training / steps, averaging, begins)]

    def choose(self, iteration: int) -> bool:
        """Chooses the tau from `iteration` on; returns whether it is another than before.

        Of less than three rounds nothing is concluded.
        """
        if len(self._times) < 3:
            return False
        per_iteration = max(1e-9, statistics.median(time for time, _, _ in self._times))
        kinds = [[time for _, time, begins in self._times if begins == kind] for kind in (False, True)]
        per_average = sum(len(kind) * statistics.median(kind) for kind in kinds if kind) / len(self._times)
        wanted = math.ceil(per_average * (1 - self.share) / (self.share * per_iteration))
        now = self.tau.at(iteration)
        wanted = max(1, now // 4, min(wanted, 4 * now, MOST))
        if now / self.ABOUT <= wanted <= now * self.ABOUT:
            self.after = min(self.MANY, 2 * self.after)
            return False
        self.after = self.FEW
        self.tau = self.tau.then(iteration, wanted)
        return True
