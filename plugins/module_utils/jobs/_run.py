# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""Run a job of an environment: its steps one after the other. Cron, systemd and the module backup_job start it."""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import sys
import time
import traceback
from typing import Any, Callable, Dict, List, NamedTuple, Sequence, TextIO

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _signals
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.host._redact import Redactor
from ansible_collections.nodeops.pm2.plugins.module_utils.jobs import _config, _kinds
from ansible_collections.nodeops.pm2.plugins.module_utils.jobs._config import Config, Job, JobStep
from ansible_collections.nodeops.pm2.plugins.module_utils.jobs._record import Record

FAILED = 1
UNUSABLE = 2
"""Exit codes: a step failed; the job could not begin."""
PAUSE = 5.0
"""Seconds between two attempts of a step, if the job has patience."""
_SECRETS = ("login_password",)


class Outcome(NamedTuple):
    """How a step has ended. ``result`` is what the module would return; for a failure, its details."""

    module: str
    failed: bool
    ended: bool
    message: str
    seconds: float
    result: Dict[str, Any]

    @property
    def changed(self) -> bool:
        return not self.failed and bool(self.result.get("changed"))

    def told(self) -> str:
        """One line for people."""
        if self.failed:
            return "%s failed after %.1f s: %s" % (self.module, self.seconds, self.message)
        words = ["changed" if self.changed else "unchanged"]
        backup = self.result.get("backup")
        if backup:
            words.append("backup %s" % (backup.get("id") if isinstance(backup, dict) else backup))
        if self.result.get("removed"):
            words.append("%d old removed" % len(self.result["removed"]))
        return "%s: %s (%.1f s)" % (self.module, ", ".join(words), self.seconds)


def perform(config: Config, job: Job, check_mode: bool, warn: Callable[[str], None]) -> List[Outcome]:
    """Run every step, also if an earlier one has failed. A signal ends the job. Check mode leaves no trace."""
    os.environ["PATH"] = config.path
    os.environ.setdefault("HOME", pwd.getpwuid(os.geteuid()).pw_dir)  # systemd sets none for root
    os.environ.setdefault("USER", pwd.getpwuid(os.geteuid()).pw_name)
    for step in job.steps:  # import all code now: the installed version may be replaced meanwhile
        _kinds.library(step.module)
    if check_mode:
        return [_attempt(step, 0.0, True, warn) for step in job.steps]
    os.makedirs(config.directory, mode=0o700, exist_ok=True)
    record = Record(config, job, warn)

    def noted(warning: str) -> None:
        warn(warning)
        record.say(warning)

    record.begin()
    outcomes: List[Outcome] = []
    try:
        for step in job.steps:
            outcomes.append(_attempt(step, job.patience, False, noted))
            record.say(outcomes[-1].told())
            record.backup(step.module, outcomes[-1].result)
            if outcomes[-1].ended:
                break
    finally:
        done = len(outcomes) == len(job.steps)
        record.end(FAILED if not done or any(outcome.failed for outcome in outcomes) else 0)
    return outcomes


def _attempt(step: JobStep, patience: float, check_mode: bool, warn: Callable[[str], Any]) -> Outcome:
    """Run a step, again and again for ``patience`` seconds while it fails."""
    begun = time.monotonic()
    with _signals.raised():
        while True:
            ended = False
            try:
                result = _kinds.library(step.module).run(step.params, check_mode, warn)
                problems = "; ".join(result.get("problems") or [])  # a backup was made, but it is not good
                # A signal that waits because the step was past its point of no return ends the job after it.
                return Outcome(
                    step.module, bool(problems), _is_told_to_end(), problems, time.monotonic() - begun, result
                )
            except _signals.Interrupted as error:
                return Outcome(step.module, True, True, str(error), time.monotonic() - begun, {})
            except NodeopsError as error:
                message, details = str(error), error.details
                ended = _is_told_to_end()
            except Exception as error:
                message, details = _unexpected(error, step), {}
            if ended or time.monotonic() - begun + PAUSE > patience:
                return Outcome(step.module, True, ended, message, time.monotonic() - begun, details)
            try:
                time.sleep(PAUSE)
            except _signals.Interrupted as error:
                return Outcome(step.module, True, True, str(error), time.monotonic() - begun, {})


def _is_told_to_end() -> bool:
    return any(number in signal.sigpending() for number in _signals.ENDING)


def _unexpected(error: Exception, step: JobStep) -> str:
    """A defect, or an unforeseen error: its type and place, and its message without the secrets that we know."""
    redactor = Redactor()
    redactor.add_environment({name: step.params.get(name) for name in _SECRETS if step.params.get(name)})
    place = traceback.extract_tb(error.__traceback__)[-1]
    return "unexpected %s in %s:%s: %s" % (
        type(error).__name__,
        os.path.basename(place.filename),
        place.lineno,
        redactor.text(str(error)),
    )


def main(arguments: Sequence[str]) -> int:
    """``<configuration> <job> [--quiet]``: run the job. Returns the exit code. Failures go to standard error.

    With ``--quiet`` a job that ends well prints nothing, so that cron sends no mail. Its warnings are in the log.
    """
    warnings: List[str] = []

    def warn(text: str) -> None:
        if quiet:
            warnings.append(text)
        else:
            _tell(sys.stderr, text)

    quiet = "--quiet" in arguments
    words = [argument for argument in arguments if argument != "--quiet"]
    if len(words) != 2:
        _tell(sys.stderr, "usage: run.py <job> [--quiet]")
        return UNUSABLE
    try:
        config = _config.read(words[0])
        job = config.job(words[1])
        outcomes = perform(config, job, False, warn)
    except (NodeopsError, OSError) as error:
        _tell(sys.stderr, "%s: %s" % (words[1], error))
        return UNUSABLE
    code = code_of(job, outcomes)
    for text in warnings if code else ():
        _tell(sys.stderr, text)
    for outcome in outcomes:
        if outcome.failed or not quiet:
            _tell(
                sys.stderr if outcome.failed else sys.stdout, "%s of %s: %s" % (job.name, config.name, outcome.told())
            )
    return code


def _tell(stream: TextIO, text: str) -> None:
    """Write a line. If the pipe is closed, the job goes on."""
    with contextlib.suppress(OSError):
        stream.write(text + "\n")
        stream.flush()


def code_of(job: Job, outcomes: Sequence[Outcome]) -> int:
    """The exit code of a job whose steps have ended so."""
    return FAILED if len(outcomes) < len(job.steps) or any(outcome.failed for outcome in outcomes) else 0
