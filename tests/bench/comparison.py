"""Things measured in turn, A B A B, so that what else the machine does meets all; their medians, their ratio."""

from __future__ import annotations

import os
import statistics
import time
from typing import Callable, List, NamedTuple, Optional

Work = Callable[[], object]


class Cost(NamedTuple):
    """Seconds: on the clock, and of processors (this process and the children it has waited for)."""

    clock: float
    processor: float

    @classmethod
    def now(cls) -> Cost:
        return cls(time.perf_counter(), sum(os.times()[:4]))


class Comparison(NamedTuple):
    """Costs of both, round by round."""

    what: str
    ours: List[Cost]
    other_name: str
    other: List[Cost]
    target: Optional[float]

    @property
    def ratio(self) -> float:
        """Of the medians on the clock: what the target is about."""
        return median(self.ours).clock / median(self.other).clock

    def text(self) -> str:
        """Ratio, target and medians; the ratio of processor time moves less when the machine is busy."""
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
    """Of each kind of seconds."""
    return Cost(*map(statistics.median, zip(*costs, strict=True)))


def in_turn(*works: Work, rounds: int, before: Work = lambda: None) -> List[List[Cost]]:
    """What each costs, after one round that does not count. Nor does `before`, which comes first in each round."""
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
    """How many rounds count: $BENCH_ROUNDS, else as many as usual."""
    return int(os.environ.get("BENCH_ROUNDS", usual))
