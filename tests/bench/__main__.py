"""Measure the named subjects, or all, and print the ratios."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from support import places

from bench import deploys, plays, reading, restores

SUBJECTS = {
    "plays": plays.measure,
    "reading": reading.measure,
    "deploys": deploys.measure,
    "restores": restores.measure,
}


def main() -> None:
    places.use_own_places()
    chosen = sys.argv[1:] or list(SUBJECTS)
    for name in chosen:
        directory = Path(tempfile.mkdtemp(prefix="pm2-bench-"))
        try:
            for comparison in SUBJECTS[name](directory):
                print(comparison.text(), flush=True)
        finally:
            shutil.rmtree(directory)


if __name__ == "__main__":
    main()
