"""Our normalisation of generated definitions, compared with Common.js of each version of PM2.

It compares less than test_parity.py, because nothing is started, but far more definitions, with odd combinations.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any, Dict, List, Optional

import pytest
from ansible_collections.nodeops.pm2.plugins.module_utils.definition import _ecosystem
from ansible_collections.nodeops.pm2.plugins.module_utils.definition._app import (
    App,
    Context,
    DefinitionError,
    build_apps,
)
from ansible_collections.nodeops.pm2.plugins.module_utils.definition._javascript import text
from model import definitions
from model.context import context_of
from model.generated import generated
from support.pm2 import VERSIONS, Pm2Home

Json = Dict[str, Any]

COUNT = 3000
# The calls of Common.js in API.js _startJson (985) and startApps (1112), up to the call of `prepare`.
_PM2 = """
const fs = require('fs');
const [pm2, input, output, cwd] = process.argv.slice(1);
const Common = require(pm2 + '/lib/Common.js');
const before = {...process.env};
const results = JSON.parse(fs.readFileSync(input)).map(({definition, env}) => {
  for (const name of Object.keys(process.env)) if (!(name in before)) delete process.env[name];
  try {
    const [app] = [].concat(Common.verifyConfs([definition]));
    if (app instanceof Error) return {error: app.message};
    app.env.io = app.io;
    if (!app.namespace) app.namespace = 'default';
    if (app.append_env_to_name && env) app.name += '-' + env;
    app.username = Common.getCurrentUsername();
    const resolved = Common.resolveAppAttributes({cwd, pm2_home: process.env.PM2_HOME}, app);
    resolved.env.PM2_HOME = process.env.PM2_HOME;
    resolved.env = Common.mergeEnvironmentVariables(resolved, env, {});
    delete resolved.env.current_conf;
    return {resolved};
  } catch (error) {
    return {error: String(error && error.stack || error)};
  }
});
fs.writeFileSync(output, JSON.stringify(results));
"""


def ours(definition: Json, env_name: Optional[str], context: Context, base: Path) -> Optional[App]:
    try:
        merged = _ecosystem.merge_env([definition], env_name)
        return build_apps(merged, context, "default", str(base))[0]
    except DefinitionError:
        return None


def theirs(accepted: List[Json], context: Context, base: Path) -> List[Json]:
    source, target = base / "in.json", base / "out.json"
    source.write_text(json.dumps(accepted))
    subprocess.run(
        [context.node, "-e", _PM2, context.pm2_dir, str(source), str(target), str(base)],
        env=context.base_env,
        cwd=base,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
        timeout=120,
    )
    found: List[Json] = json.loads(target.read_text())
    return found


def count(instances: int, cpus: int) -> int:
    """God.js:138."""
    return max(1, instances if instances > 0 else instances + cpus)


@pytest.mark.parametrize("version", VERSIONS)
def test_generated_definitions_become_what_pm2_makes_of_them(version: str, tmp_path: Path) -> None:
    base = tmp_path / "apps"
    definitions.write_programs(base)
    home = Pm2Home(version, tmp_path / "pm2")
    context = context_of(home)
    cases = []
    for definition in generated(COUNT, base, context):
        env_name = "production" if "env_production" in definition else None
        app = ours(definition, env_name, context, base)
        is_crash = "exec" in definition and not definition.get("name")  # PM2 takes no name from it, and fails
        if app is not None and not is_crash:
            cases.append((definition, env_name, app))

    results = theirs([{"definition": definition, "env": env} for definition, env, _app in cases], context, base)

    assert len(cases) > COUNT / 20
    wrong = []
    for (definition, _env, app), result in zip(cases, results, strict=True):
        if "error" in result:
            wrong.append(f"{definition}\n  PM2: {result['error']}")
            continue
        resolved = result["resolved"]
        wanted = {key: value for key, value in resolved.items() if not key.startswith("env_") and value is not None}
        wanted["instances"] = count(wanted["instances"], os.cpu_count() or 1)
        wanted["env"] = {name: text(value) for name, value in wanted["env"].items() if name != "PWD"}
        got = {**app.config, "env": app.env, "instances": app.instances}
        if wanted.get("cwd"):
            wanted["cwd"] = os.path.normpath(base / wanted["cwd"])  # absolute in ours, as written in PM2's
        if "args" in wanted:
            wanted["args"] = [text(word) for word in wanted["args"]]  # text in ours, as a program gets them in any case
        different = {key: (wanted.get(key), got.get(key)) for key in {*wanted, *got} if wanted.get(key) != got.get(key)}
        if different:
            wrong.append(f"{definition}\n  PM2, ours: {different}")
    assert wrong == [], f"{len(wrong)} of {len(cases)}:\n" + "\n".join(wrong[:20])
