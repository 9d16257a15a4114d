"""Builds the wheel of one pure Python package (PEP 517) with the standard library."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, Optional

NAME = "sales_scoring"
VERSION = "1.0.0"
INFO = "%s-%s.dist-info" % (NAME, VERSION)
TEXTS = {
    INFO + "/METADATA": "Metadata-Version: 2.1\nName: sales-scoring\nVersion: %s\n" % VERSION,
    INFO + "/WHEEL": "Wheel-Version: 1.0\nGenerator: backend\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
}


def build_wheel(
    wheel_directory: str, config_settings: Optional[Any] = None, metadata_directory: Optional[str] = None
) -> str:
    """Write the wheel and return its name."""
    files = {path.relative_to(Path()).as_posix(): path.read_text(encoding="utf-8") for path in Path(NAME).glob("*.py")}
    texts = {**files, **TEXTS}
    record = INFO + "/RECORD"
    lines = ["%s,," % name for name in [*texts, record]]
    wheel = "%s-%s-py3-none-any.whl" % (NAME, VERSION)
    with zipfile.ZipFile(str(Path(wheel_directory, wheel)), "w") as archive:
        for name, text in {**texts, record: "\n".join(lines) + "\n"}.items():
            archive.writestr(name, text)
    return wheel
