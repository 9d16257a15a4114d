"""Forbidden commands, written plainly or hidden behind scripts."""

from __future__ import annotations

import json
from typing import Any, Dict, Optional, Sequence, Union

import pytest
import yaml
from ansible_collections.nodeops.pm2.plugins.module_utils import _guard
from ansible_collections.nodeops.pm2.plugins.module_utils._errors import Pm2Error
from support import places

FORBIDDEN = [r"drizzle-kit push.*--force", r"prisma migrate reset", r"^sequelize db:drop"]

SCRIPTS = {
    "db:push": "drizzle-kit push",
    "db:force": "drizzle-kit push --force",
    "migrate": "npm run build && npm run db:force",
    "build": "vite build",
    "postclean": "prisma   migrate\treset",
    "clean": "rm -rf dist",
    "deep": "yarn deeper",
    "deeper": "pnpm run deepest",
    "deepest": "cross-env NODE_ENV=production npx -y drizzle-kit push '--force'",
    "loop:a": "npm run loop:b",
    "loop:b": "npm run loop:a",
    "all": "run-s build db:f*",
    "both": "concurrently 'npm:build' \"npm run db:force\"",
    "test": "prisma migrate reset",
    "drop": "(sequelize db:drop)",
    "restart": "echo",
    "stop": "prisma migrate reset",
    "quoted": 'bash -ec "cd db; npm run db:force"',
    "broken": "echo 'unfinished && prisma migrate reset",
    "lines": "vite build \\\n && prisma \\\n migrate reset",
}


def package_json(**scripts: str) -> str:
    return json.dumps({"name": "app", "scripts": {**SCRIPTS, **scripts}})


@pytest.mark.parametrize(
    "command",
    [
        "drizzle-kit push --force",
        ["drizzle-kit", "push", "--strict", "--force"],
        "npx drizzle-kit  push   --force",
        ["sh", "-c", "cd db && drizzle-kit push --force"],
        ["bash", "-lc", "sequelize db:drop"],
        "npx sequelize db:drop",
        "env A=1 sequelize db:drop",
        "NODE_ENV=production sequelize db:drop",
        "npm exec -- sequelize db:drop",
        "npm exec -c 'npm run db:force'",
        "npx -c 'npm run db:force'",
        "pnpm dlx sequelize db:drop",
        "yarn sequelize db:drop",
        "npm run db:force",
        "npm run-script db:force",
        "npm --silent run db:force",
        "npm run --silent db:force",
        "npm --loglevel silent run db:force",
        "npm run --loglevel silent db:force",
        "npm --userconfig x run db:force",
        "npm --loglevel silent --userconfig x run --silent --scope a db:force",
        "npm --loglevel silent exec -- sequelize db:drop",
        "npm run db:push -- --force",
        "npm run db:push --force",
        "yarn db:push --force",
        "pnpm db:force",
        "bun run db:force",
        "npm run migrate",
        "npm run clean",
        "npm run deep",
        "npm run all",
        "npm run both",
        "npm test",
        "npm t",
        "npm restart",
        "npm run drop",
        "npm run quoted",
        "npm run broken",
        "npm run lines",
        "node --run db:force",
        "time -p npm run db:force",
        "sudo -u app npm run db:force",
        "dotenv -e .env -- npm run db:force",
        "/usr/local/bin/npm run db:force",
        ["sh", "-c", "bash -c 'npm run db:force'"],
        "sh -c 'x=$(npm run db:force)'",
    ],
)
def test_a_forbidden_command_is_found(command: Union[str, Sequence[str]]) -> None:
    with pytest.raises(Pm2Error, match="forbidden by the pattern"):
        _guard.check(["npm run build", command], FORBIDDEN, package_json(), "migrate")


@pytest.mark.parametrize(
    "command",
    [
        "npm run build",
        "npm ci",
        "npm run db:push",
        "npm run loop:a",
        "drizzle-kit push",
        "npm run missing",
        "npm --loglevel silent run build",
        "npm run build -- --with db:force",
        "npm ci --omit test",
        "npm",
        "npm run",
    ],
)
def test_what_is_not_forbidden_passes(command: str) -> None:
    _guard.check([command], FORBIDDEN, package_json(), "build")


@pytest.mark.parametrize("hook", ["preinstall", "install", "postinstall", "prepare"])
@pytest.mark.parametrize("command", ["npm ci --omit=dev", "npm i", "yarn", "yarn install", "pnpm install"])
def test_an_install_leads_to_its_hooks(command: str, hook: str) -> None:
    with pytest.raises(Pm2Error, match=hook):
        _guard.check([command], FORBIDDEN, package_json(**{hook: "prisma migrate reset"}), "dependencies")


@pytest.mark.parametrize("command", ["drizzle-kit push --force", "npx drizzle-kit --force push"])
def test_the_patterns_of_the_role_know_both_orders(command: str) -> None:
    patterns = yaml.safe_load((places.ROOT / "roles/deploy/defaults/main.yml").read_text())["deploy_forbidden"]
    with pytest.raises(Pm2Error, match="forbidden by the pattern"):
        _guard.check([command], patterns, None, "migrate")


def test_the_message_says_what_where_and_by_which_way() -> None:
    with pytest.raises(Pm2Error) as raised:
        _guard.check([["npm", "run", "migrate"]], FORBIDDEN, package_json(), "migrate")
    text = str(raised.value)
    assert text.startswith("Migrate: the command npm run migrate leads to")
    assert "drizzle-kit push --force" in text
    assert "the script migrate, the script db:force" in text
    assert FORBIDDEN[0] in text
    assert "Nothing was run" in text
    assert raised.value.details["pattern"] == FORBIDDEN[0]


def test_a_secret_of_a_command_is_not_shown() -> None:
    with pytest.raises(Pm2Error) as raised:
        _guard.check(["prisma migrate reset --token canary-1234"], FORBIDDEN, None, "migrate")
    assert "canary-1234" not in str(raised.value) + json.dumps(raised.value.details)


@pytest.mark.parametrize(
    "text", [None, "", "{", "[]", "null", '{"scripts": []}', '{"scripts": {"a": 7}}', '{"scripts": "x"}']
)
def test_a_package_json_of_any_kind(text: Any) -> None:
    _guard.check(["npm run a"], FORBIDDEN, text, "build")
    with pytest.raises(Pm2Error, match="forbidden by"):
        _guard.check(["prisma migrate reset"], FORBIDDEN, text, "build")


@pytest.mark.parametrize("pattern", ["(", "[", 7, None])
def test_a_pattern_that_is_none_is_named(pattern: Any) -> None:
    with pytest.raises(Pm2Error, match="no regular expression"):
        _guard.check([], [pattern], None, "build")


def test_many_scripts_that_call_each_other_end() -> None:
    scripts: Dict[str, str] = {f"s{i}": " && ".join(f"npm run s{j} -- {i}" for j in range(20)) for i in range(20)}
    _guard.check(["npm run s0"], FORBIDDEN, json.dumps({"scripts": scripts}), "build")


APP = json.dumps({"scripts": {"db:force": "drizzle-kit push --force", "fine": "node build.js"}})
ROOT = {
    "build": "npm --prefix app run fine",
    "all": "cd app && npm run db:force",
    "way": "npm --prefix=app run db:force",
}


def read_release(path: str) -> Optional[str]:
    return {"package.json": json.dumps({"scripts": ROOT}), "app/package.json": APP}.get(path)


@pytest.mark.parametrize(
    "command",
    [
        "npm --prefix app run db:force",
        "npm run db:force --prefix ./app",
        "npm -C app/ run db:force",
        "pnpm --dir app db:force",
        "yarn --cwd app db:force",
        "npm run all",
        "npm run way",
        "sh -c 'cd app; npm run db:force'",
    ],
)
def test_scripts_of_another_directory_are_followed(command: str) -> None:
    with pytest.raises(Pm2Error, match="the script db:force"):
        _guard.check([command], FORBIDDEN, read_release("package.json"), "migrate", read_release)


@pytest.mark.parametrize(
    "command",
    [
        "npm --prefix app run fine",
        "npm run build",
        "npm run db:force",
        "npm --prefix ../app run db:force",
        "npm --prefix none run db:force",
    ],
)
def test_scripts_of_another_directory_are_not_mixed_up(command: str) -> None:
    _guard.check([command], FORBIDDEN, read_release("package.json"), "migrate", read_release)
