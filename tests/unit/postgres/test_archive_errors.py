"""What pg_restore says of an archive that is bad, and of a server that lacks something: as it said it."""

from __future__ import annotations

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres import _archive_errors

COPY = 'pg_restore: error: COPY failed for table "items": ERROR:  '
KEY = "DETAIL:  Key (id)=(s3cret) is"
QUERY = "pg_restore: error: could not execute query: ERROR:  "
DIED = "pg_restore: error: a worker process died unexpectedly\n"

BAD = [
    ("pg_restore: error: could not uncompress data: incorrect data check", "could not uncompress data: incorrect data"),
    ("pg_restore: error: could not read from input file: end of file", "could not read from input file: end of file"),
    (
        "pg_restore: error: unrecognized data block type (83) while searching archive",
        "unrecognized data block type (83)",
    ),
    (
        f'{COPY}invalid input syntax for type integer: "s3cret"\nCONTEXT:  COPY items, line 777, column id: "s3cret"',
        'table "items": ERROR:  invalid input syntax for type integer',
    ),
    (
        f'{COPY}value "70000" is out of range for type smallint\nCONTEXT:  COPY items, line 7, column n: "70000"',
        'table "items": ERROR:  value',
    ),
    (
        f'{COPY}invalid byte sequence for encoding "UTF8": 0xff\nCONTEXT:  COPY items, line 777',
        'table "items": ERROR:  invalid byte sequence for encoding "UTF8"',
    ),
    (
        f'{COPY}extra data after last expected column\nCONTEXT:  COPY items, line 777: "777\ts3cret"',
        'table "items": ERROR:  extra data after last expected column',
    ),
    (
        f'{COPY}missing data for column "n"\nCONTEXT:  COPY items, line 777: "777\ts3cret"',
        'table "items": ERROR:  missing data for column "n"',
    ),
    (
        f'{QUERY}could not create unique index "items_pkey"\n{KEY} duplicated.\nCommand was: A',
        'could not create unique index "items_pkey"',
    ),
    (
        f'{QUERY}insert or update on table "c" violates foreign key constraint "f"\n{KEY} not present in table "p".',
        'insert or update on table "c" violates foreign key constraint "f"',
    ),
]

NOT_PROVEN = [
    f'{QUERY}role "shop" does not exist\nCommand was: ALTER TABLE public.items OWNER TO shop;\n\n\n',
    f'{QUERY}extension "postgis" is not available\nDETAIL:  Could not open extension control file: No such file',
    f'{QUERY}could not load library "/usr/lib/postgresql/15/lib/postgis-3.so"',
    f"{QUERY}permission denied for language c\nCommand was: CREATE FUNCTION public.f() RETURNS integer",
    f'{QUERY}unrecognized configuration parameter "transaction_timeout"\nCommand was: SET transaction_timeout = 0;',
    f"{QUERY}syntax error at or near \"WITH\"\nCommand was: SELECT 'invalid input syntax for type integer';",
    f'{QUERY}could not extend file "base/1/2": No space left on device\nHINT:  Check free disk space.',
    f'{QUERY}could not create unique index "i"\nDETAIL:  Key (lower(name))=(x) is duplicated.',
    f'{QUERY}could not create unique index "i"\nCommand was: CREATE UNIQUE INDEX i ON public.items USING btree (id);',
    f"{QUERY}canceling statement due to user request\n",
    f"{COPY}canceling statement due to statement timeout\nCONTEXT:  COPY items, line 1",
    f"{COPY}permission denied for table items\n",
    f'{COPY}could not extend file "base/1/2": No space left on device\nCONTEXT:  COPY items, line 5',
    f'{COPY}new row for relation "items" violates check constraint "c"\nDETAIL:  Failing row contains (1).',
    f'{COPY}value for domain d violates check constraint "d_check"\nCONTEXT:  COPY items, line 1, column d: "x"',
    f'{COPY}role "shop" does not exist\nCONTEXT:  COPY items, line 1, column r: "shop"',
    f'{COPY}invalid input syntax for type geometry: "x"\nCONTEXT:  COPY items, line 1, column g: "x"',
    f'{COPY}invalid input syntax for type integer: "x"\nCONTEXT:  SQL function "f"\nCOPY items, line 1',
    'pg_restore: error: COPY failed for table "items": FEHLER:  ungültige Eingabesyntax für Typ integer: »x«',
    "pg_restore: error: could not uncompress data: insufficient memory",
    "pg_restore: error: could not read from input file: Input/output error",
    'pg_restore: error: could not open input file "1.dump": No such file or directory',
    "pg_restore: error: unsupported version (1.16) in file header",
    "pg_restore: error: this build does not support compression with zstd",
    "pg_restore: error: out of memory",
    "pg_restore: terminated by user",
    "pg_restore: error: server closed the connection unexpectedly",
    f"{COPY}server closed the connection unexpectedly\n\tThis probably means the server terminated abnormally",
    f"{QUERY}function f() does not exist\nCommand was: SELECT 'x'\npg_restore: error: of something\n",
    "",
]


@pytest.mark.parametrize("end", ["", f"\n{DIED}"], ids=["one job", "two jobs"])
@pytest.mark.parametrize(("said", "words"), BAD)
def test_a_bad_archive(said: str, words: str, end: str) -> None:
    """It is told from what stands before it and after it, and nothing of the data is remembered."""
    proof = _archive_errors.of_a_bad_archive(f"pg_restore: while PROCESSING TOC:\n{said}{end}")
    assert proof
    assert words in proof
    assert "s3cret" not in proof


@pytest.mark.parametrize("said", NOT_PROVEN)
def test_nothing_is_proven(said: str) -> None:
    assert _archive_errors.of_a_bad_archive(f"{said}\n{DIED}") is None
