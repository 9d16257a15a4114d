"""Forbidden commands, written plainly or hidden behind scripts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, Optional, Sequence, Union

import pytest
import yaml
from ansible_collections.nodeops.pm2.plugins.module_utils.builder import _forbidden
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
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
    with pytest.raises(NodeopsError, match="forbidden by the pattern"):
        _forbidden.check(["npm run build", command], FORBIDDEN, package_json(), "migrate")


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
    _forbidden.check([command], FORBIDDEN, package_json(), "build")


@pytest.mark.parametrize("hook", ["preinstall", "install", "postinstall", "prepare"])
@pytest.mark.parametrize("command", ["npm ci --omit=dev", "npm i", "yarn", "yarn install", "pnpm install"])
def test_an_install_leads_to_its_hooks(command: str, hook: str) -> None:
    with pytest.raises(NodeopsError, match=hook):
        _forbidden.check([command], FORBIDDEN, package_json(**{hook: "prisma migrate reset"}), "dependencies")


@pytest.mark.parametrize("command", ["drizzle-kit push --force", "npx drizzle-kit --force push"])
def test_the_patterns_of_the_role_know_both_orders(command: str) -> None:
    patterns = yaml.safe_load((places.ROOT / "roles/deploy/defaults/main.yml").read_text())["deploy_forbidden"]
    with pytest.raises(NodeopsError, match="forbidden by the pattern"):
        _forbidden.check([command], patterns, None, "migrate")


def test_the_message_names_the_command_its_place_and_the_chain_of_scripts() -> None:
    with pytest.raises(NodeopsError) as raised:
        _forbidden.check([["npm", "run", "migrate"]], FORBIDDEN, package_json(), "migrate")
    text = str(raised.value)
    assert text.startswith("Migrate: the command npm run migrate leads to")
    assert "drizzle-kit push --force" in text
    assert "the script migrate, the script db:force" in text
    assert FORBIDDEN[0] in text
    assert "Nothing was run" in text
    assert raised.value.details["pattern"] == FORBIDDEN[0]


def test_a_secret_of_a_command_is_not_shown() -> None:
    with pytest.raises(NodeopsError) as raised:
        _forbidden.check(["prisma migrate reset --token canary-1234"], FORBIDDEN, None, "migrate")
    assert "canary-1234" not in str(raised.value) + json.dumps(raised.value.details)


@pytest.mark.parametrize(
    "text", [None, "", "{", "[]", "null", '{"scripts": []}', '{"scripts": {"a": 7}}', '{"scripts": "x"}']
)
def test_a_package_json_of_any_kind(text: Any) -> None:
    _forbidden.check(["npm run a"], FORBIDDEN, text, "build")
    with pytest.raises(NodeopsError, match="forbidden by"):
        _forbidden.check(["prisma migrate reset"], FORBIDDEN, text, "build")


@pytest.mark.parametrize("pattern", ["(", "[", 7, None])
def test_an_invalid_pattern_is_named(pattern: Any) -> None:
    with pytest.raises(NodeopsError, match="is not a regular expression"):
        _forbidden.check([], [pattern], None, "build")


def test_a_cycle_of_many_scripts_ends() -> None:
    scripts: Dict[str, str] = {f"s{i}": " && ".join(f"npm run s{j} -- {i}" for j in range(20)) for i in range(20)}
    _forbidden.check(["npm run s0"], FORBIDDEN, json.dumps({"scripts": scripts}), "build")


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
    with pytest.raises(NodeopsError, match="the script db:force"):
        _forbidden.check([command], FORBIDDEN, read_release("package.json"), "migrate", read_release)


@pytest.mark.parametrize(
    "command",
    [
        "npm --prefix app run fine",
        "npm run build",
        "npm run db:force",
    ],
)
def test_scripts_of_another_directory_are_not_mixed_up(command: str) -> None:
    _forbidden.check([command], FORBIDDEN, read_release("package.json"), "migrate", read_release)


MONOREPO = {
    "": {
        "push": "echo",
        "build": "tsc",
        "by:name": "npm run push -w @shop/db",
        "by:name:deeper": "run-s by:name",
        "by:yarn": "yarn workspace @shop/db push",
        "prehook": "pnpm -r run push",
        "hook": "echo",
        "by:turbo": "turbo run push --filter=@shop/db",
        "both": "(cd packages/web && npm run build) && npm run push",
        "each": "for each in packages/*; do (cd $each && npm run push); done",
        "dev": "drizzle-kit push --force",
    },
    "packages/db": {"push": "drizzle-kit push --force", "build": "tsc", "postclean": "npm run push", "test:db": "x"},
    "packages/web": {"build": "vite build", "clean": "rm -rf dist"},
}


def read_monorepo(path: str) -> Optional[str]:
    directory, _slash, name = path.rpartition("/")
    known = name == "package.json" and directory in MONOREPO
    return json.dumps({"scripts": MONOREPO[directory]}) if known else None


def check_monorepo(command: Any) -> None:
    root = read_monorepo("package.json")
    _forbidden.check(["npm run build", command], FORBIDDEN, root, "migrate", read_monorepo, lambda: list(MONOREPO))


@pytest.mark.parametrize(
    "command",
    [
        "npm run push -w @shop/db",
        "npm run push --workspace=packages/db",
        "npm run push --workspace packages/db",
        "npm run push -w @shop/web -w @shop/db",
        "npm run -w @shop/db push",
        "npm -w @shop/db run push",
        "npm --workspace @shop/db run-script push",
        "npm --silent --workspace=@shop/db run push",
        "npm run push --workspaces --if-present",
        "npm run push --ws",
        "npm -ws run push",
        "npm run push --work @shop/db",
        "npm run clean --ws",
        "npm exec -w @shop/db -c 'npm run push'",
        "npm --prefix packages/db run push",
        "npm --prefix packages/$NAME run push",
        "npm --prefix ../release/packages/db run push",
        "npm -C packages/db run push",
        "npm_config_workspace=@shop/db npm run push",
        "env NPM_CONFIG_WORKSPACES=true npm run push",
        "npx npm@10 run push -w @shop/db",
        "pnpm --filter @shop/db run push",
        "pnpm --filter=@shop/db push",
        "pnpm --filter-prod @shop/db push",
        "pnpm -F @shop/db push",
        "pnpm run -F @shop/db push",
        "pnpm run push --filter @shop/db",
        "pnpm -r run push",
        "pnpm -r push",
        "pnpm -r exec npm run push",
        "pnpm --recursive run push",
        "pnpm recursive run push",
        "pnpm multi run push",
        "pnpm --dir packages/db push",
        "pnpm --dir=packages/db run push",
        "pnpm -C packages/db push",
        "corepack pnpm@9.1.0 -F @shop/db push",
        "yarn workspace @shop/db push",
        "yarn workspace @shop/db run push",
        "yarn workspaces run push",
        "yarn workspaces foreach run push",
        "yarn workspaces foreach -A run push",
        "yarn workspaces foreach --all --include @shop/db run push",
        "yarn --cwd packages/db push",
        "yarn --cwd packages/db run push",
        "node .yarn/releases/yarn-4.1.0.cjs workspace @shop/db push",
        "bun run --filter '*' push",
        "bun run --filter=@shop/db push",
        "bun --filter @shop/db push",
        "bun --cwd packages/db run push",
        "bun --cwd=packages/db run push",
        "turbo run push",
        "npx turbo push --filter=@shop/db",
        "nx run @shop/db:push",
        "nx run-many -t build,push",
        "nx run-many --target=push",
        "lerna run push --scope @shop/db",
        "npm run by:name",
        "npm run by:name:deeper",
        "npm run by:yarn",
        "npm run hook",
        "npm run by:turbo",
        "npm run each",
        "sh -c 'cd packages/db; npm run push'",
        "sh -c 'cd packages; cd db; npm run push'",
    ],
)
def test_scripts_of_workspaces_are_followed(command: str) -> None:
    with pytest.raises(NodeopsError, match=r"the script push of packages/db/package\.json"):
        check_monorepo(command)


@pytest.mark.parametrize(
    "command",
    [
        "npm run push",
        "npm run build --workspaces",
        "npm run build -w @shop/db",
        "npm run push -- -w @shop/db",
        "npm --prefix packages/web run push",
        "npm --prefix=packages/web run push",
        "pnpm --filter @shop/web run build",
        "pnpm -r build",
        "yarn workspace @shop/web build",
        "yarn workspaces run build",
        "bun run --filter '*' build",
        "turbo run build",
        "npm run both",
        "npm ci",
        "pnpm install --frozen-lockfile",
        "sh -c 'cd packages/web && npm run build'",
    ],
)
def test_what_workspaces_may_do_passes(command: str) -> None:
    check_monorepo(command)


def test_a_command_after_a_subshell_is_looked_up_in_the_first_directory() -> None:
    with pytest.raises(NodeopsError, match=r"\(by way of the script dev\)"):
        check_monorepo("sh -c '(cd packages/web && npm run build) && npm run dev'")


@pytest.mark.parametrize("command", ["npm ci", "yarn", "pnpm i --prod", "bun install"])
def test_an_install_leads_to_the_hooks_of_workspaces(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(MONOREPO, "packages/db", {"postinstall": "prisma migrate reset"})
    with pytest.raises(NodeopsError, match=r"the script postinstall of packages/db/package\.json"):
        check_monorepo(command)


@pytest.mark.parametrize("command", ["pnpm -w dev", "pnpm -w run dev", "pnpm --workspace-root dev", "yarn run -T dev"])
def test_the_scripts_of_the_root_are_followed_from_any_directory(command: str) -> None:
    with pytest.raises(NodeopsError, match=r"\(by way of the script dev\)"):
        check_monorepo(["sh", "-c", "cd packages/web && " + command])


def test_scripts_of_many_packages_end() -> None:
    root = json.dumps({"scripts": {"all": "npm run build --workspaces --if-present && pnpm -r run all --x"}})
    package = json.dumps({"scripts": {"build": "pnpm -r run build && npm run more", "more": "tsc", "postinstall": "x"}})
    packages = ["", *(f"packages/{number}" for number in range(500))]
    for command in ("npm run all", "npm ci"):
        _forbidden.check([command], FORBIDDEN, root, "build", lambda _path: package, lambda: packages)


@pytest.mark.parametrize("build", ["yarn workspace p{0} build", "cd dist && mv index.js p{0}.js && gzip p{0}.js"])
def test_many_packages_with_different_builds_are_followed(build: str) -> None:
    scripts = {f"packages/{number}": {"build": build.format(number + 1)} for number in range(120)}
    scripts["packages/119"]["build"] += " && yarn more"
    texts = {path + "/package.json": json.dumps({"scripts": each}) for path, each in scripts.items()}
    root = json.dumps({"scripts": {"build": "yarn workspaces foreach run build"}})
    packages = ["", *scripts]
    _forbidden.check(["yarn build"], FORBIDDEN, root, "build", texts.get, lambda: packages)
    last = dict(scripts["packages/119"], more="prisma migrate reset")
    texts["packages/119/package.json"] = json.dumps({"scripts": last})
    with pytest.raises(NodeopsError, match=r"the script more of packages/119/package\.json"):
        _forbidden.check(["yarn build"], FORBIDDEN, root, "build", texts.get, lambda: packages)


def test_an_endless_chain_is_refused() -> None:
    chain = {f"s{number}": f"npm run s{number + 1}" for number in range(60)}
    with pytest.raises(NodeopsError, match="leads to too many others"):
        _forbidden.check(["npm run s0"], FORBIDDEN, json.dumps({"scripts": chain}), "build")


def test_a_chain_of_too_many_commands_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_forbidden, "_MAX_STEPS", 100)
    monkeypatch.setattr(_forbidden, "_MORE_STEPS", 1)
    package = json.dumps({"scripts": {"all": " && ".join(f"npm run all -w {number}" for number in range(9))}})
    packages = ["", *(f"packages/{number}" for number in range(9))]
    with pytest.raises(NodeopsError, match="leads to too many others"):
        _forbidden.check(["npm run all"], FORBIDDEN, package, "build", lambda _path: package, lambda: packages)


def test_the_packages_of_a_release_are_found(tmp_path: Path) -> None:
    for name in ("", "a", "a/b", ".hidden/c", "node_modules/x", "a/node_modules/y", ".git/z"):
        (tmp_path / "release" / name).mkdir(parents=True, exist_ok=True)
        (tmp_path / "release" / name / "package.json").write_text("{}")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "package.json").write_text("{}")
    (tmp_path / "release" / "link").symlink_to("../outside")
    (tmp_path / "release" / "loop").symlink_to(".")
    assert sorted(_forbidden.packages_below(str(tmp_path / "release"))) == ["", ".hidden/c", "a", "a/b"]


def test_too_many_packages_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_forbidden, "_MAX_PACKAGES", 2)
    for name in "abc":
        (tmp_path / name).mkdir()
        (tmp_path / name / "package.json").write_text("{}")
    with pytest.raises(NodeopsError, match="more than 2 files package"):
        _forbidden.packages_below(str(tmp_path))
