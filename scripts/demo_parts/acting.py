"""Runs playbooks and shows them, also under load, and counts the proofs."""

from __future__ import annotations

import time
from typing import Callable, List, NamedTuple

import show
import world
from support.load import Load

PROOFS = show.Proofs()


def play(label: str, command: List[str]) -> world.Run:
    """Run a shipped playbook, and show it."""
    show.running(command)
    run = world.run(label, command)
    show.ran(run)
    return run


class Watched(NamedTuple):
    """A play while production was under load, and the state before and after it."""

    run: world.Run
    load: Load
    before: world.View
    after: world.View


def under_load(run_it: Callable[[], world.Run], path: str = "/") -> Watched:
    """Run a play while four clients keep sending requests to production."""
    before = world.look()
    with Load(world.port("production"), path, pause=0.02) as load:
        time.sleep(0.5)
        run = run_it()
        time.sleep(0.5)
    return Watched(run, load, before, world.look())
