# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""A journal: what a run is about to do, written before it does it, so that the next run can finish or undo it.

It is one JSON document in one file. What it says is each room's own; how it is written, read and removed is the same.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import Any, Callable, Dict, Optional, TypeVar

from ansible_collections.nodeops.pm2.plugins.module_utils.host import _files
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError

FORMAT = 1
"""In the document as ``format``. Earlier versions of the collection wrote most journals without it."""

Document = TypeVar("Document")


class JournalFile:
    """Where a journal is. One writer at a time: callers hold a lock."""

    def __init__(self, path: str, work: str, advice: str) -> None:
        """``work``: what was interrupted if it is found ("restore"); ``advice``: what to do if it cannot be read."""
        self.path = path
        self._work = work
        self._advice = advice

    def read(self, parse: Callable[[Any], Document]) -> Optional[Document]:
        """What a killed run left, or None.

        ``parse`` makes it of the JSON value, and raises ValueError, TypeError, KeyError or AttributeError for another
        one. Raises NodeopsError if it is there and cannot be used; the message shows nothing of its content.
        """
        try:
            with open(self.path, encoding="utf-8") as stream:
                value = json.load(stream)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._unreadable(_files.why(error)) from error
        except ValueError as error:
            raise self._unreadable("it is not JSON") from error
        number = value.pop("format", FORMAT) if isinstance(value, dict) else FORMAT
        if number != FORMAT:
            raise self._unreadable("its format is not %d: another version of this collection wrote it" % FORMAT)
        try:
            return parse(value)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise self._unreadable("it is not what this version of the collection writes") from error

    def write(self, document: Dict[str, Any]) -> None:
        """Make ``document`` durable before anything it announces is done. Raises NodeopsError if it cannot."""
        try:
            os.makedirs(os.path.dirname(self.path), mode=0o700, exist_ok=True)
            _files.write_atomically(self.path, json.dumps(dict(document, format=FORMAT)).encode("utf-8"))
        except OSError as error:
            raise NodeopsError("The journal %s could not be written: %s." % (self.path, _files.why(error))) from error

    def remove(self) -> None:
        """There is nothing to finish or undo any more. Raises NodeopsError if it cannot."""
        try:
            _files.discard_unfinished(self.path)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self.path)
                _files.sync_directory(os.path.dirname(self.path))
        except OSError as error:
            raise NodeopsError("The journal %s could not be removed: %s." % (self.path, _files.why(error))) from error

    def _unreadable(self, reason: str) -> NodeopsError:
        return NodeopsError(
            "The journal %s of an interrupted %s cannot be read: %s. Nothing was changed. %s"
            % (self.path, self._work, reason, self._advice)
        )
