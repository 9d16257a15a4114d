"""How a server is reached: what is refused, what PostgreSQL's programs get, and where the password is."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Dict

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils import _pg_module
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres import _connection_options
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._connection import connection
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres._psql import identifier, literal

TCP = {"login_host": "db.example.com", "ssl_mode": "verify-full"}


def params(**given: Any) -> Dict[str, Any]:
    """All options, as a module has them."""
    defaults = {name: option.get("default") for name, option in _connection_options.CONNECTION.items()}
    return {**defaults, **given}


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"login_host": "a", "login_unix_socket": "/tmp"}, "both given"),
        ({"login_host": "a,b"}, "a list of hosts"),
        ({"login_host": "postgresql://u:secret@h/d"}, "login_host is postgresql://h/d, which is a URL"),
        ({"login_host": "postgresql://u:secret/1@h/d"}, r"login_host is postgresql://\.\.\., which is a URL"),
        ({"login_host": "u:secret@h"}, r"login_host is \.\.\.@h, which is a URL"),
        ({"maintenance_db": "postgresql://u:secret@h/d"}, "a URL"),
        ({"login_unix_socket": "/nowhere"}, "not a directory"),
        ({"login_port": 0}, "not a port"),
        ({"login_port": 70000}, "not a port"),
        ({"login_password": "a\nb"}, "login_password has a line break"),
        ({"login_password": "a", "passfile": "/x"}, "both given"),
        ({"passfile": "/nowhere"}, "passfile is /nowhere"),
        ({"service_file": "/etc/passwd"}, "without service"),
        ({"service": "a", "service_file": "/nowhere"}, "service_file is /nowhere"),
        ({**TCP, "ca_cert": "/nowhere"}, "ca_cert is /nowhere"),
        ({"ssl_mode": "verify-full"}, "has no TLS"),
        ({"ssl_mode": "verify-ca", "login_host": "/tmp"}, "has no TLS"),
        ({"login_user": "a\nb"}, "line break"),
        ({"login_host": "a\0b"}, "NUL"),
    ],
)
def test_refused(given: Dict[str, Any], why: str):
    with pytest.raises(NodeopsError, match=why) as caught, connection(params(**given)):
        pass
    assert "Nothing was changed." in str(caught.value)


def test_a_passfile_that_others_may_read(tmp_path: Path):
    passfile = tmp_path / "pass"
    passfile.write_text("*:*:*:*:secret\n")
    passfile.chmod(0o640)
    with pytest.raises(NodeopsError, match="mode 0640"), connection(params(passfile=str(passfile))):
        pass
    passfile.chmod(0o600)
    with connection(params(passfile=str(passfile))) as made:
        assert made.environ()["PGPASSFILE"] == str(passfile)


def test_the_environment_holds_what_is_needed_and_nothing_of_ours(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PGHOST", "elsewhere")
    monkeypatch.setenv("PGPASSWORD", "no")
    monkeypatch.setenv("PGOPTIONS", "-c statement_timeout=1")
    with connection(params(**TCP, login_port=6543, login_user="shop", ca_cert="/etc/passwd")) as made:
        environment = made.environ("orders")
    expected = {
        "PGHOST": "db.example.com",
        "PGPORT": "6543",
        "PGUSER": "shop",
        "PGDATABASE": "orders",
        "PGSSLMODE": "verify-full",
        "PGSSLROOTCERT": "/etc/passwd",
        "PGCONNECT_TIMEOUT": "10",
        "PGAPPNAME": "nodeops.pm2",
        "PGCLIENTENCODING": "UTF8",
        "PGOPTIONS": "-c statement_timeout=0",
    }
    assert {name: value for name, value in environment.items() if name.startswith("PG")} == expected
    assert set(environment) - set(expected) == {"PATH", "HOME", "LANG", "LC_ALL"}


def test_the_password_is_on_no_disk_and_gone_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    with connection(params(**TCP, login_password="a:b\\c")) as made:
        path = made.environ()["PGPASSFILE"]
        assert Path(path).read_text() == "*:*:*:*:a\\:b\\\\c\n"
        assert os.stat(path).st_mode & 0o777 == 0o600
        assert not os.stat(path).st_nlink
        assert "a:b" not in str(made.environ())
        assert "a:b" not in made.target("x")
        assert made.shown("no a:b\\c here") == "no ******** here"
        assert not list(tmp_path.iterdir())
    assert not os.path.exists(path)


def test_without_files_in_memory_the_password_is_in_one_that_is_removed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.delattr(os, "memfd_create")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with connection(params(**TCP, login_password="a:b")) as made:
        path = Path(made.environ()["PGPASSFILE"])
        assert path.parent == tmp_path
        assert path.stat().st_mode & 0o777 == 0o600
        assert path.read_text() == "*:*:*:*:a\\:b\n"
    assert not list(tmp_path.iterdir())


def test_any_name_of_a_database_is_a_name():
    with connection(params(login_host="h", login_user="o'd")) as made:
        target = made.target("it's \\ host=evil")
    assert "user='o\\'d'" in target
    assert target.endswith("dbname='it\\'s \\\\ host=evil'")


@pytest.mark.parametrize(
    ("given", "local", "text"),
    [
        ({}, True, "the local socket"),
        ({"login_unix_socket": "/tmp", "login_port": 5433}, True, "/tmp:5433"),
        ({"login_host": "h", "login_user": "u", "login_port": 1}, False, "u@h:1"),
        ({"login_host": "127.0.0.1"}, False, "127.0.0.1"),
        ({"service": "shop"}, False, "shop"),
    ],
)
def test_where(given: Dict[str, Any], local: bool, text: str):
    with connection(params(**given)) as made:
        assert (made.is_local, str(made)) == (local, text)


def test_sql():
    assert identifier('a"b') == '"a""b"'
    assert literal("it's \\") == "E'it\\'s \\\\'"


@pytest.mark.parametrize(
    "given",
    ["postgresql://u:secret/1@h/d", "postgresql://h/d?user=u&password=secret", "host=h password=secret dbname=d"],
)
def test_no_password_is_shown_where_a_name_was_asked_for(given: str) -> None:
    assert "secret" not in str(_pg_module.without_urls([given]))
    assert _pg_module.without_urls(["shop", 5432]) == ["shop", 5432]
