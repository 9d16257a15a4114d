"""The output of the demo: steps, tables, proofs."""

from __future__ import annotations

import shlex
import sys
import textwrap
from typing import Any, Iterable, List, Mapping, NamedTuple, NoReturn, Sequence, Tuple

from world import ENVIRONMENTS, Process, Run, View, relative

WIDTH = 110


def paragraph(text: str, indent: str = "") -> None:
    """Print a paragraph."""
    print(textwrap.fill(" ".join(text.split()), WIDTH, initial_indent=indent, subsequent_indent=indent), flush=True)


def step(number: int, title: str, text: str) -> None:
    """Print the heading of a step, and what it is going to do."""
    print(f"\n── {number}. {title} {'─' * (WIDTH - len(title) - 7)}")
    paragraph(text)


def running(command: Sequence[str]) -> None:
    """Print a command before it is run."""
    print(f"\n  $ {shlex.join(command)}", flush=True)


def ran(run: Run) -> None:
    """Print how a run ended."""
    outcome = f"done, {run.changed} tasks changed something" if run.ok else "failed"
    print(f"    {run.summary}\n    {outcome} ({run.seconds:.0f} s; all output: {relative(run.log)})", flush=True)


def reason(run: Run) -> None:
    """Print the message of a failed playbook."""
    lines = [line for line in run.message.splitlines() if not line.startswith("    at ")]  # no stack traces
    for line in lines:
        print(textwrap.fill(line, WIDTH, initial_indent="    │ ", subsequent_indent="    │ "))


def history(entries: Iterable[Mapping[str, Any]]) -> None:
    """Print a table with the result of each deploy and rollback."""
    rows: List[Tuple[str, ...]] = [("time (UTC)", "result", "version", "release", "by", "reason")]
    for entry in entries:
        reason = textwrap.shorten(entry.get("reason") or "", 40, placeholder=" …")
        rows.append((entry["time"][:19], *(entry[name] for name in ("result", "version", "release", "by")), reason))
    _table(rows)


class Proofs:
    """Counts the proofs. The first claim that does not hold ends the demo."""

    def __init__(self) -> None:
        self.count = 0

    def that(self, claim: str, holds: bool, found: object, run: Run | None = None) -> None:
        """Show a claim and what was found. End the demo if the claim does not hold."""
        print(f"  {'✔' if holds else '✘'} {claim}: {found}", flush=True)
        if not holds:
            give_up(f"This does not hold: {claim}.", run)
        self.count += 1

    def untouched(self, environment: str, before: View, after: View) -> None:
        """Prove that an environment has the same processes, restart counts and dump entries."""
        same = before.of(environment) == after.of(environment) and bool(before.of(environment))
        pids = ", ".join(str(process.pid) for process in after.of(environment))
        self.that(f"{environment} was not touched", same, f"same pids ({pids}), same restart counts, same states")
        entries = after.saved(environment)
        same = before.saved(environment) == entries and bool(entries)
        self.that(f"{environment}'s part of dump.pm2 is the same", same, f"{len(entries)} entries, every byte compared")


def give_up(text: str, run: Run | None = None) -> NoReturn:
    """End the demo, with the log of the run."""
    if run:
        print(f"\n{run.log.read_text()}")
    print(f"\nTHE DEMO FAILED. {text} It is left running for inspection; `make demo-stop` ends it.", file=sys.stderr)
    raise SystemExit(1)


class Row(NamedTuple):
    """A line of the table of processes."""

    environment: str
    app: str
    instance: str
    pid: str
    restarts: str
    what: str


def processes(before: View, after: View) -> None:
    """Print a table of all processes, before and after a step."""
    rows = [Row("environment", "app", "instance", "pid", "restarts", "")]
    for environment in ENVIRONMENTS:
        rows += _rows(environment, before.of(environment), after.of(environment))
    _table(rows)


def _table(rows: Sequence[Tuple[str, ...]]) -> None:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    print()
    for row in rows:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    print(flush=True)


def _rows(environment: str, before: List[Process], after: List[Process]) -> Iterable[Row]:
    old = {process.slot: process for process in before}
    for new in after:
        was = old.get(new.slot)
        yield Row(
            environment,
            new.name,
            str(new.instance),
            _change(was and was.pid, new.pid),
            _change(was and was.restarts, new.restarts),
            _what(was, new),
        )


def _change(before: int | None, after: int) -> str:
    return str(after) if before in (None, after) else f"{before} → {after}"


def _what(before: Process | None, after: Process) -> str:
    if before is None:
        return "new"
    if before == after:
        return "untouched"
    return "replaced" if before.pm_id != after.pm_id else "stopped, and started again"
