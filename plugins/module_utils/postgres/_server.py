# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

# This file is private to the nodeops.pm2 collection: no stability is promised.

"""The connection of a restore. If it is lost it is opened again, with its locks."""

from __future__ import annotations

import contextlib
import time
from types import TracebackType
from typing import Callable, Iterator, List, Optional, Sequence, Set, Type, TypeVar

from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres import _advisory_lock, _psql
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._connection import Connection, PgError
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._programs import Tools, Version

PATIENCE = 10.0  # seconds that a server may take to start again, or an old session of ours to end
_PAUSE = 0.1

Row = List[Optional[str]]
Answer = TypeVar("Answer")


def is_lost(error: BaseException) -> bool:
    """Whether the connection is gone: broken (08), ended by an administrator, or the server is stopping or starting."""
    state = getattr(error, "sqlstate", None) or ""
    return isinstance(error, PgError) and (state.startswith("08") or state in ("57P01", "57P02", "57P03", "57P05"))


class Server:
    """A session in the maintenance database. A query that is repeated gives the state of that moment."""

    def __init__(self, tools: Tools, connection: Connection) -> None:
        self.tools = tools
        self.connection = connection
        self._session: Optional[_psql.Session] = None
        self._locked: Set[str] = set()
        self._was_open = False
        self._patience: Optional[float] = None

    def __enter__(self) -> Server:
        self._opened()
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the session, and with it the locks."""
        session, self._session = self._session, None
        if session is not None:
            with contextlib.suppress(Exception):
                session.close()

    @property
    def version(self) -> Version:
        """The server's."""
        return self.ask(lambda session: session.version, again=True)

    def query(self, sql: str) -> List[Row]:
        """The rows. Asked again if the connection was lost."""
        return self.ask(lambda session: session.query(sql), again=True)

    def value(self, sql: str) -> Optional[str]:
        """The first value of the first row, None without one. Asked again if the connection was lost."""
        return self.ask(lambda session: session.value(sql), again=True)

    def execute(self, sql: str, again: bool = False, patience: Optional[float] = None) -> None:
        """``again``: it is idempotent, and is executed again if the connection was lost.

        ``patience``: seconds to wait for a lock before 55P03; by default as long as it takes.
        """

        def run(session: _psql.Session) -> None:
            if patience is None:
                session.execute(sql)
                return
            session.execute("SET lock_timeout = %d" % max(1, int(patience * 1000)))
            try:
                session.execute(sql)
            except PgError as error:
                if not is_lost(error):
                    session.execute("SET lock_timeout = 0")
                raise
            session.execute("SET lock_timeout = 0")

        self.ask(run, again)

    def transaction(self, statements: Sequence[str], before_commit: Callable[[], None] = lambda: None) -> None:
        """Execute all of ``statements`` or none. If the connection is lost meanwhile, only the server knows which."""
        self.execute("BEGIN", again=True)
        try:
            for statement in statements:
                self.execute(statement)
            before_commit()
            self.execute("COMMIT")
        except PgError as error:
            if not is_lost(error):
                self.execute("ROLLBACK")
            raise
        except BaseException:  # a signal: the transaction ends with the session
            self.close()
            raise

    def lock(self, names: Sequence[str], timeout: float) -> None:
        """Keep every other restore away from these databases until ``close``. Raises NodeopsError naming the holder."""
        wanted = set(names) - self._locked
        _advisory_lock.lock(self._opened(), wanted, timeout)
        self._locked |= wanted

    @contextlib.contextmanager
    def answering_within(self, seconds: float) -> Iterator[None]:
        """Within, a server that does not answer for so long counts as lost: the service is down meanwhile."""
        self._patience = seconds
        try:
            yield
        finally:
            self._patience = None

    def try_lock(self, name: str) -> bool:
        """The same without waiting. False if another run works on the database."""
        if name not in self._locked:
            if not _advisory_lock.try_lock(self._opened(), name):
                return False
            self._locked.add(name)
        return True

    def ask(self, question: Callable[[_psql.Session], Answer], again: bool = False) -> Answer:
        """The answer of ``question`` over the session."""
        session = self._opened()
        session.patience = self._patience
        try:
            return question(session)
        except PgError as error:
            if not is_lost(error):
                raise
            self.close()
            if not again:
                raise
        except BaseException:  # a signal in the middle of an answer: the next query would read the rest of it
            self.close()
            raise
        return self.ask(question)

    def _opened(self) -> _psql.Session:
        if self._session is None:
            self._session = self._open()
            self._was_open = True
        return self._session

    def _open(self) -> _psql.Session:
        deadline = time.monotonic() + (PATIENCE if self._was_open else 0)
        while True:
            try:
                session = _psql.Session(self.tools, self.connection, self.connection.maintenance_db)
            except PgError as error:
                if not is_lost(error) or time.monotonic() >= deadline:
                    raise
                time.sleep(_PAUSE)
                continue
            try:
                # The old session may still be ending on the server. It is over when its locks are free.
                _advisory_lock.lock(session, self._locked, PATIENCE)
            except BaseException as error:
                session.close()
                if isinstance(error, NodeopsError) and not isinstance(error, PgError):
                    raise PgError(
                        "The connection to %s was lost, and the server still holds its locks %g s later"
                        % (self.connection, PATIENCE)
                    ) from error
                raise
            return session
