"""Subjects measured in turn, A B A B, so that other load of the machine affects all. Gives medians and a ratio."""

from __future__ import annotations

import os
import statistics
import time
from typing import Callable, List, NamedTuple, Optional

Work = Callable[[], object]


class Cost(NamedTuple):
    """Seconds by the clock, and of processor time (this process and the children it has waited for)."""

    clock: float
    processor: float

    @classmethod
    def now(cls) -> Cost:
        return cls(time.perf_counter(), sum(os.times()[:4]))


class Comparison(NamedTuple):
    """The costs of both subjects, round by round."""

    what: str
    ours: List[Cost]
    other_name: str
    other: List[Cost]
    target: Optional[float]

    @property
    def ratio(self) -> float:
        """The ratio of the medians by the clock, which the target limits."""
        return median(self.ours).clock / median(self.other).clock

    def text(self) -> str:
        """Ratio, target and medians. The ratio of processor time changes less if the machine is busy."""
        ours, other = median(self.ours), median(self.other)
        verdict = "no target"
        if self.target is not None:
            verdict = f"target {self.target}: " + ("reached" if self.ratio <= self.target else "MISSED")
        processor = f"{ours.processor / other.processor:.2f}" if other.processor else "-"
        return (
            f"{self.ratio:6.3f}  {verdict:21} {self.what} ({ours.clock * 1000:.1f} ms) / "
            f"{self.other_name} ({other.clock * 1000:.1f} ms), medians of {len(self.ours)}; processor time {processor}"
        )


def median(costs: List[Cost]) -> Cost:
    """The median of each kind of seconds."""
    return Cost(*map(statistics.median, zip(*costs, strict=True)))


def in_turn(*works: Work, rounds: int, before: Work = lambda: None) -> List[List[Cost]]:
    """The costs of each, without the first round, and without `before`, which runs first in each round."""
    costs: List[List[Cost]] = [[] for _work in works]
    for number in range(rounds + 1):
        before()
        for work, found in zip(works, costs, strict=True):
            start = Cost.now()
            work()
            end = Cost.now()
            if number:
                found.append(Cost(end.clock - start.clock, end.processor - start.processor))
    return costs


def rounds(usual: int) -> int:
    """The number of rounds that count: $BENCH_ROUNDS, or the usual number."""
    return int(os.environ.get("BENCH_ROUNDS", usual))
