# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A role's argument specification, defaults and README agree."""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from typing import Any, Dict, List, Set, Tuple

import pytest
import yaml
from ansible_collections.nodeops.pm2.plugins.module_utils.postgres import _restore_options
from support import places

ROLES = sorted(path.name for path in (places.ROOT / "roles").iterdir())
INVENTORIES = sorted(path.name for path in (places.ROOT / "inventories").iterdir())
# Their defaults refer to other variables.
COMPUTED = {
    "deploy_database",
    "deploy_fleet",
    "backup_name",
    "backup_environment",
    "backup_job_dir",
    "db_restore_ready",
}
WITH_HOOKS = [role for role in ROLES if role in ("deploy", "rollback")]


def specification(role: str, entry_point: str = "main") -> Dict[str, Any]:
    """The options of one of the role's entry points."""
    return dict(entry_points(role)[entry_point]["options"])


def entry_points(role: str) -> Dict[str, Any]:
    """The role's entry points, with their options."""
    text = (places.ROOT / "roles" / role / "meta" / "argument_specs.yml").read_text()
    return dict(yaml.safe_load(text)["argument_specs"])


def calls_of_roles() -> List[Tuple[Path, str, str]]:
    """Each `tasks_from` in a playbook or a role: the file that has it, the role and the tasks."""
    files = [*(places.ROOT / "playbooks").glob("*.yml"), *(places.ROOT / "roles").glob("*/tasks/**/*.yml")]
    said = re.compile(r"name: nodeops\.pm2\.(\w+)\n +tasks_from: ([\w/]+)")
    return [(file, role, tasks) for file in sorted(files) for role, tasks in said.findall(file.read_text())]


def defaults(role: str) -> Dict[str, Any]:
    """The role's defaults."""
    path = places.ROOT / "roles" / role / "defaults" / "main.yml"
    return dict(yaml.safe_load(path.read_text())) if path.exists() else {}


def test_the_roles_are_found() -> None:
    assert {"backup", "db_restore", "deploy", "recover", "rollback"} <= set(ROLES)


@pytest.mark.parametrize("role", ["backup", "deploy", "db_restore"])
def test_the_defaults_are_those_of_the_specification(role: str) -> None:
    said = {name: option["default"] for name, option in specification(role).items() if "default" in option}
    own = {name: value for name, value in said.items() if role in ("backup", "deploy") or name.startswith(role)}
    assert {name: value for name, value in defaults(role).items() if name not in COMPUTED} == own


@pytest.mark.parametrize("role", ["db_restore", "recover"])
def test_a_variable_is_the_same_in_every_role_that_reads_it(role: str) -> None:
    backup = specification("backup")
    shared = {name: option for name, option in specification(role).items() if name in backup}
    assert shared
    assert shared == {name: backup[name] for name in shared}


@pytest.mark.parametrize(("file", "role", "tasks"), calls_of_roles(), ids=str)
def test_no_call_of_a_role_avoids_the_validation_of_its_variables(file: Path, role: str, tasks: str) -> None:
    """The called tasks are an entry point of their role, or an entry point of another role calls them."""
    calls = file.parent.parent.name
    assert tasks in entry_points(role) or (calls in ROLES and file.stem in entry_points(calls))


AT_BOOT = "resurrect_timeout"
"""The option that only the job at boot has."""


def test_every_call_of_a_role_is_found() -> None:
    texts = [file.read_text() for folder in ("playbooks", "roles") for file in (places.ROOT / folder).rglob("*.yml")]
    assert sum(text.count("tasks_from:") for text in texts) == len(list(calls_of_roles())) > 0


@pytest.mark.parametrize("role", ROLES)
def test_a_variable_is_the_same_for_every_entry_point(role: str) -> None:
    for entry_point in entry_points(role):
        for name, option in specification(role, entry_point).items():
            assert option == specification(role)[name], (entry_point, name)


@pytest.mark.parametrize("role", ROLES)
def test_the_readme_has_exactly_the_variables(role: str) -> None:
    text = (places.ROOT / "roles" / role / "README.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| ([\w, ]+) \|", text, re.M))
    options = specification(role)
    assert set(rows) == set(options)
    for name, option in options.items():
        if option["type"] != "raw":
            assert rows[name] == option["type"], name


@pytest.mark.parametrize(
    ("tasks", "without"), [("restore", {AT_BOOT}), ("undo", {AT_BOOT, "backup", "jobs", "keep_previous"})]
)
def test_a_restore_can_be_given_every_option_of_its_module(tasks: str, without: Set[str]) -> None:
    text = (places.ROOT / "roles" / "backup" / "tasks" / "entry" / f"{tasks}.yml").read_text()
    (block,) = [task["block"] for task in yaml.safe_load(text) if "block" in task]
    (given,) = [task["nodeops.pm2.pg_restore"] for task in block if "nodeops.pm2.pg_restore" in task]
    assert set(given) == set(_restore_options.ARGUMENTS) - without


def test_a_recovery_is_of_the_databases_of_the_environment() -> None:
    variables = yaml.safe_load((places.ROOT / "roles" / "backup" / "vars" / "main.yml").read_text())
    assert "'databases': backup_databases" in variables["__backup_step_recover_databases"]["params"]


@pytest.mark.parametrize("role", ROLES)
def test_every_task_file_that_is_named_exists(role: str) -> None:
    """An import in a folder has the whole path: ansible-core 2.17 would look for the file beside the playbook."""
    tasks = places.ROOT / "roles" / role / "tasks"
    for file in tasks.rglob("*.yml"):
        for kind, name in re.findall(r"(import|include)_tasks: \"?([^\n\"]+\.yml)", file.read_text()):
            whole = name.startswith("{{ role_path }}/tasks/")
            assert whole or kind == "include" or file.parent == tasks, (file, name)
            name = name.replace("{{ role_path }}/tasks/", "")
            assert "{{" in name or (tasks / name).is_file(), (file, name)


@pytest.mark.parametrize("role", WITH_HOOKS)
def test_every_hook_that_runs_can_be_given(role: str) -> None:
    tasks = "".join(path.read_text() for path in Path(places.ROOT / "roles" / "deploy" / "tasks").rglob("*.yml"))
    run = {
        name
        for names in re.findall(r"\[('[\w', ]+')\] \| select\('in', __deploy_hook_files\)", tasks)
        for name in re.findall(r"\w+", names)
    }
    assert run == set(specification(role)["deploy_hooks"]["options"])


@pytest.mark.parametrize("inventory", INVENTORIES)
def test_the_user_of_an_inventory_may_write_beside_its_store(inventory: str) -> None:
    """The key and the job are written beside `backup_dest`, so the directory above it has to belong to the user."""
    found = (places.ROOT / "inventories" / inventory / "group_vars").glob("**/*.yml")
    variables = {name: value for file in found for name, value in (yaml.safe_load(file.read_text()) or {}).items()}
    user, above = variables.get("ansible_user"), PurePosixPath(variables["backup_dest"]).parent
    if user != "root":
        assert above != PurePosixPath("/var/backups")
    if user not in (None, "root"):
        readme = (places.ROOT / "inventories" / inventory / "README.md").read_text()
        assert f"`install -d -o {user} -g {user} -m 0700 {above}`" in readme


@pytest.mark.parametrize("file", sorted((places.ROOT / "inventories").glob("*/group_vars/**/*.yml")), ids=str)
def test_a_role_reads_every_variable_of_an_inventory(file: Path) -> None:
    known = {name for role in ROLES for name in specification(role)}
    prefixes = ("backup_", "db_restore_", "deploy_", "pg_", "pm2_", "recover_", "rollback_")
    said = {name for name in yaml.safe_load(file.read_text()) or {} if name.startswith(prefixes)}
    assert said <= known
