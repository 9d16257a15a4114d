"""The croner of each PM2 accepts and survives every pattern that _cron.py accepts.

croner throws inside the daemon if it refuses a pattern. So generated patterns go through the real croner. It also has
to find the next time quickly and without filling its stack, from many dates, in a time zone with summer time.
"""

from __future__ import annotations

import json
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any, Dict, List

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.definition import _cron
from model.context import package_of
from support.pm2 import VERSIONS

COUNT = 20000
SEED = 4

_CRONER = """
const fs = require('fs');
const [pm2, input, output] = process.argv.slice(1);
const Cron = require(require.resolve('croner', {paths: [pm2]}));
const dates = ['2026-01-01', '2026-03-28T23:59:59', '2027-10-30', '2028-02-28', '2096-03-01'].map((at) => new Date(at));
const results = JSON.parse(fs.readFileSync(input)).map((pattern) => {
  const result = {next: []};
  try {
    const started = process.cpuUsage();
    const job = Cron(pattern, () => {});
    job.stop();
    const finder = Cron(pattern);
    result.next = dates.map((date) => finder.next(date));
    result.ms = process.cpuUsage(started).user / 1000;
  } catch (error) {
    result.error = error.message;
  }
  return result;
});
fs.writeFileSync(output, JSON.stringify(results));
process.exit(0);
"""

_NUMBERS = [str(number) for number in (0, 1, 2, 5, 6, 7, 11, 12, 13, 23, 24, 28, 29, 30, 31, 32, 59, 60, 99)]
_WORDS = ["JAN", "feb", "Dec", "MON", "sun", "SAT", "L", "l", "?", "W", "", "-", "/", ",", "*", "#", "00", "007", "1.5"]


def generated() -> List[str]:
    """Patterns of five or six fields, sometimes more or fewer. Each field has any form, valid or not."""
    choice = random.Random(SEED)

    def item() -> str:
        return choice.choice(_NUMBERS * 3 + _WORDS)

    def field() -> str:
        forms = ["*"] * 8 + [item()] * 4
        forms += ["*/" + item(), f"{item()}-{item()}", f"{item()}-{item()}/{item()}", f"{item()},{item()}"]
        forms += [f"{item()}/{item()}", f"{item()},{item()},{item()}", f"{item()}-{item()},{item()}"]
        return choice.choice(forms)

    patterns = []
    for _number in range(COUNT):
        count = choice.choice([5] * 8 + [6] * 4 + [4, 7])
        separator = choice.choice([" "] * 8 + ["  ", "\t", "\n", "\u00a0"])
        patterns.append(separator.join(field() for _round in range(count)))
    return patterns


def every_day() -> List[str]:
    """Each day of each month with each weekday. croner searches longest for these, or finds none."""
    patterns = []
    for day in [*range(28, 32), "L"]:
        for month in range(1, 13):
            patterns += [f"0 0 {day} {month} {weekday}" for weekday in ("*", *range(8))]
    return [*patterns, "0 0 31 4,6,9,11 *", "0 0 30,31 2 *", "30 2 29 2 SUN", "59 59 23 31 12 FRI"]


def croner(version: str, patterns: List[str], directory: Path, timeout: float = 120) -> List[Dict[str, Any]]:
    source, target = directory / "patterns.json", directory / "results.json"
    source.write_text(json.dumps(patterns))
    node = str(shutil.which("node"))
    env = {"TZ": "Europe/Berlin"}
    subprocess.run(
        [node, "-e", _CRONER, str(package_of(version)), str(source), str(target)], env=env, check=True, timeout=timeout
    )
    results: List[Dict[str, Any]] = json.loads(target.read_text())
    return results


@pytest.mark.parametrize("version", VERSIONS)
def test_croner_takes_every_accepted_pattern(version: str, tmp_path: Path) -> None:
    candidates = generated() + every_day()
    accepted = [pattern for pattern in candidates if _cron.problem(pattern) is None]

    results = croner(version, accepted, tmp_path)

    assert len(accepted) > 800
    bad = [(pattern, result) for pattern, result in zip(accepted, results, strict=True) if is_bad(result)]
    assert bad == []


def is_bad(result: Dict[str, Any]) -> bool:
    return "error" in result or not all(result["next"]) or result["ms"] > 2000


@pytest.mark.parametrize(
    ("pattern", "symptom"),
    [
        ("* * * * 9/2", "hangs"),
        ("0 0 31 4,6,9,11 *", "Maximum call stack"),
        ("61 * * * *", "out of range"),
        ("1-5,10 * * * *", "cannot coexist"),
        ("daily", "five or six"),
        ("2026-13-45T99:99:99", "parsed as date"),
    ],
)
def test_patterns_that_harm_the_daemon_are_refused(tmp_path: Path, pattern: str, symptom: str) -> None:
    """Each of these ends the daemon with all its apps, or keeps it busy for ever. PM2 checks only some of them."""
    assert _cron.problem(pattern)

    try:
        (result,) = croner(VERSIONS[-1], [pattern], tmp_path, timeout=3 if symptom == "hangs" else 60)
    except subprocess.TimeoutExpired:
        result = {"error": "hangs"}
    assert symptom in result.get("error", "")
