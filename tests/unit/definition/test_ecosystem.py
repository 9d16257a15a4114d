"""Ecosystem files: how they are read, and the merge of one environment. test_bad_input.py has what is refused."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.definition import _ecosystem, _ecosystem_node
from ansible_collections.nodeops.pm2.plugins.module_utils.definition._context import Context
from ansible_collections.nodeops.pm2.plugins.module_utils.host._errors import NodeopsError
from model.context import package_of, plain_context
from support import processes
from support.pm2 import VERSIONS

Json = Dict[str, Any]

APP: Json = {"name": "app", "script": "app.js"}


def context(directory: Path, version: str = VERSIONS[-1]) -> Context:
    return plain_context(directory, pm2_dir=str(package_of(version)))


def load(directory: Path, name: str, text: str, env_name: Optional[str] = None) -> _ecosystem.Definitions:
    path = directory / name
    path.write_text(text)
    return _ecosystem.load(str(path), env_name, context(directory))


@pytest.mark.parametrize(
    "config", [{"apps": [APP]}, {"apps": APP}, {"pm2": [APP]}, {"pm2": APP}, [APP], APP, {"apps": 0, "pm2": APP}]
)
def test_the_forms_of_a_file(tmp_path: Path, config: object) -> None:
    """Strict JSON is read here, other files by node, and both have to give the same (API.js:943)."""
    text = json.dumps(config)

    assert load(tmp_path, "a.json", text) == [APP]
    assert load(tmp_path, "b.json", "/* */" + text) == [APP]
    assert load(tmp_path, "c.config.js", "module.exports = " + text) == [APP]
    assert load(tmp_path, "d.config.mjs", "export default " + text) == [APP]
    assert load(tmp_path, "e.yml", text) == [APP]


def test_deploy_is_not_an_app(tmp_path: Path) -> None:
    assert load(tmp_path, "a.json", json.dumps({**APP, "deploy": {"x": {"env": {"A": 1}}}})) == [APP]


def test_keys_beside_the_apps_are_reported(tmp_path: Path) -> None:
    for name in ("a.json", "b.config.cjs"):
        prefix = "" if name.endswith("json") else "module.exports = "
        loaded = load(tmp_path, name, prefix + json.dumps({"apps": [APP], "namespace": "x"}))

        assert len(loaded.warnings) == 1
        assert "namespace" in loaded.warnings[0]


def test_es_modules(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text('{"type": "module"}')

    assert load(tmp_path, "a.config.js", "export default {apps: [{name: 'app', script: 'app.js'}]}") == [APP]
    assert load(tmp_path, "b.config.mjs", "export const apps = [{name: 'app', script: 'app.js'}]") == [APP]
    assert load(tmp_path, "c.config.mjs", "const apps = await [{name: 'app', script: 'app.js'}]; export {apps}") == [
        APP
    ]


def test_values_come_through_unchanged(tmp_path: Path) -> None:
    text = """
    const env = Object.assign(Object.create(null), {N: 12345678901234567890, F: .1, T: 'a\\u2028\\n\\x01', B: false});
    module.exports = [{name: 'ü ☃ 🎈', script: 'a', gone: undefined, env: {...env, L: [1, [null]], O: {b: 1, a: {}}}}];
    """

    (found,) = load(tmp_path, "a.config.js", text)

    assert found["name"] == "ü ☃ 🎈"
    assert "gone" not in found
    env = {
        "N": 12345678901234567000,
        "F": 0.1,
        "T": "a\u2028\n\x01",
        "B": False,
        "L": [1, [None]],
        "O": {"b": 1, "a": {}},
    }
    assert found["env"] == env


@pytest.mark.parametrize("version", VERSIONS)
def test_yaml_is_read_by_the_js_yaml_of_that_pm2(tmp_path: Path, version: str) -> None:
    """4.1 and 4.3 differ (1_000 is a number only in 4.1). The js-yaml of the PM2 that starts the apps counts."""
    text = "apps:\n- {script: a.js, env: {Y: yes, O: 0o17, H: 0x1f, N: ~, U: 1_000, T: 1:30, E: 1e3}}\n"
    (tmp_path / "a.yaml").write_text(text)

    (found,) = _ecosystem.load(str(tmp_path / "a.yaml"), None, context(tmp_path, version))

    underscore = found["env"].pop("U")
    assert found["env"] == {"Y": "yes", "O": 15, "H": 31, "N": None, "T": "1:30", "E": 1000}
    assert underscore == (1000 if version != "7.0" else "1_000")


def test_yaml_without_pm2(tmp_path: Path) -> None:
    (tmp_path / "a.yml").write_text("apps: []")

    with pytest.raises(NodeopsError, match="js-yaml"):
        _ecosystem.load(str(tmp_path / "a.yml"), None, plain_context(tmp_path))


def test_a_clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY", "x")
    monkeypatch.setenv("NODE_OPTIONS", "--no-such-option")
    text = """
    const args = [process.cwd(), __dirname, ...process.argv.slice(1)];
    module.exports = {apps: [{script: 'a', env: process.env, args}]};
    """

    (found,) = load(tmp_path, "a.config.js", text)

    assert found["env"] == context(tmp_path).base_env
    assert found["args"] == [str(tmp_path), str(tmp_path), str(tmp_path / "a.config.js")]


@pytest.mark.parametrize(
    "text",
    [
        "while (true) {}",
        "for (;;) process.stderr.write('x'.repeat(1 << 16))",
        "require('child_process').execSync('sleep 1000')",
        "process.on('SIGTERM', () => {}); require('child_process').spawn('sleep', ['1000']); while (true) {}",
    ],
)
def test_a_file_that_never_ends(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.config.js"
    path.write_text(text)

    started = time.monotonic()
    with pytest.raises(NodeopsError, match=r"longer than 0\.5 seconds"):
        _ecosystem.load(str(path), None, context(tmp_path), timeout=0.5)

    assert time.monotonic() - started < 60
    wait_for_nothing(tmp_path)


def wait_for_nothing(directory: Path) -> None:
    deadline = time.monotonic() + 60
    while processes.belonging_to(directory):
        assert time.monotonic() < deadline, processes.belonging_to(directory)
        time.sleep(0.02)


def test_processes_that_a_file_starts_end_with_it(tmp_path: Path) -> None:
    text = """
    require('child_process').spawn('sleep', ['1000'], {stdio: ['ignore', 'inherit', 'inherit', 3, 4, 5, 6, 7, 8, 9]});
    setInterval(() => {}, 1000);
    module.exports = [];
    """
    assert load(tmp_path, "a.config.js", text.replace(", 3, 4, 5, 6, 7, 8, 9", "")) == []
    wait_for_nothing(tmp_path)


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    load(tmp_path, "a.config.js", "module.exports = []")
    before = os.listdir("/proc/self/fd")
    for _number in range(3):
        load(tmp_path, "a.config.js", "module.exports = []")
        with pytest.raises(NodeopsError):
            load(tmp_path, "b.config.js", "throw 1")

    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_a_large_result(tmp_path: Path) -> None:
    text = "module.exports = [{script: 'a', args: Array.from({length: 1000}, (_, n) => String(n).repeat(1000))}]"

    (found,) = load(tmp_path, "a.config.js", text)

    assert len(found["args"]) == 1000
    with pytest.raises(NodeopsError, match="larger than"):
        load(tmp_path, "b.config.js", "module.exports = [{script: 'a'.repeat(%d)}]" % (_ecosystem_node.MAX_RESULT + 1))


def test_a_node_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "a.config.js").write_text("")

    with pytest.raises(NodeopsError, match="node cannot be run"):
        _ecosystem.load(str(tmp_path / "a.config.js"), None, context(tmp_path)._replace(node="/no/node"))


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    with pytest.raises(NodeopsError, match="larger than"):
        load(tmp_path, "a.json", " " * (_ecosystem.MAX_SIZE + 1))


def test_a_directory(tmp_path: Path) -> None:
    (tmp_path / "a.config.js").mkdir()

    with pytest.raises(NodeopsError, match="not a file"):
        _ecosystem.load(str(tmp_path / "a.config.js"), None, context(tmp_path))


def merged(definition: Json, env_name: Optional[str]) -> Json:
    return _ecosystem.merge_env([definition], env_name)[0]


def test_merge_of_an_environment() -> None:
    definition = {**APP, "env": {"A": 1, "B": 1}, "env_x": {"B": 2, "C": {"d": 1}}, "env_y": {"Z": 1}}

    assert merged(definition, "x") == {**APP, "env": {"A": 1, "B": 2, "C": {"d": 1}}}
    assert merged(definition, None) == {**APP, "env": {"A": 1, "B": 1}}
    assert definition["env"] == {"A": 1, "B": 1}, "the given definition stays as it is"


@pytest.mark.parametrize("empty", [None, {}])
def test_an_environment_that_is_empty(empty: object) -> None:
    assert merged({**APP, "env": {"A": 1}, "env_x": empty}, "x") == {**APP, "env": {"A": 1}}
    assert merged({**APP, "env": None, "env_x": {"A": 1}}, "x")["env"] == {"A": 1}


def test_the_name_of_the_environment_in_the_name() -> None:
    flags: List[Json] = [{"append_env_to_name": True}, {"appendEnvToName": True}, {"append_env_to_name": False}]

    assert [merged({**APP, **flag, "env_x": {}}, "x")["name"] for flag in flags] == ["app-x", "app-x", "app"]
    assert merged({"script": "b.js", "append_env_to_name": True, "env_x": {}}, "x")["name"] == "b-x"
    assert merged({**APP, "append_env_to_name": True}, None)["name"] == "app"


def test_an_environment_of_some_apps(tmp_path: Path) -> None:
    loaded = _ecosystem.merge_env([{**APP, "env_x": {"A": 1}}, {"script": "other.js", "env": {"A": 2}}], "x")

    assert [item["env"] for item in loaded] == [{"A": 1}, {"A": 2}]
    assert len(loaded.warnings) == 1
    assert "other" in loaded.warnings[0]


def test_an_environment_of_no_app() -> None:
    with pytest.raises(NodeopsError, match="env_x") as caught:
        _ecosystem.merge_env([APP], "x")

    assert caught.value.details["known"] == []


def test_deploy_adds_variables(tmp_path: Path) -> None:
    """They win over env and lose to env_<name>. The comment in Common.js:639 is wrong: the two objects are one."""
    config = {
        "apps": [{**APP, "env": {"A": 1, "B": 1}, "env_x": {"B": 3}}],
        "deploy": {"x": {"env": {"A": 2, "B": 2, "D": 2}}},
    }

    (found,) = load(tmp_path, "a.json", json.dumps(config), "x")

    assert found["env"] == {"A": 2, "B": 3, "D": 2}
    assert load(tmp_path, "a.json", json.dumps(config))[0]["env"] == {"A": 1, "B": 1}


def test_invalid_values_are_kept_to_be_refused_later() -> None:
    for definition in ({**APP, "env_x": "A=1"}, {**APP, "env": "A=1", "env_x": {}}):
        assert {
            key: value for key, value in merged(definition, "x").items() if key.startswith("env") and value == "A=1"
        }
    not_even_a_mapping: List[Any] = [5]
    assert _ecosystem.merge_env(not_even_a_mapping, None) == not_even_a_mapping
