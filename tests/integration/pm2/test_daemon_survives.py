"""The daemon survives every definition that passes our checks: generated ones are really given to `prepare`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import List

from ansible_collections.nodeops.pm2.plugins.module_utils.definition._app import App, DefinitionError, build_apps
from ansible_collections.nodeops.pm2.plugins.module_utils.pm2._process import Process, differences
from model.context import context_of, prepare, start_daemon
from model.definitions import write_programs
from model.generated import generated
from support.pm2 import Pm2Home

LISTED = 1500
"""Definitions to try. About a third pass, and the daemon lists them without starting them."""
STARTED = 15
"""How many of those that pass are also started."""


def accepted(pm2: Pm2Home, base: Path) -> List[App]:
    context = context_of(pm2)
    apps: List[App] = []
    names = set()
    for definition in generated(LISTED, base, context):
        try:
            (app,) = build_apps([definition], context, "default", str(base))
        except DefinitionError:
            continue
        if app.name not in names:
            names.add(app.name)
            apps.append(app)
    return apps


def test_the_daemon_survives_accepted_definitions(pm2: Pm2Home, tmp_path: Path) -> None:
    base = tmp_path / "apps"
    write_programs(base)
    start_daemon(pm2)
    (daemon,) = pm2.daemon_pids()
    apps = accepted(pm2, base)
    startable = [app for app in apps if app.autostart and not app.config.get("wait_ready")]
    for app in apps:
        app.config["autostart"] = False
    for app in startable[:STARTED]:
        app.config["autostart"] = True

    for app in apps:
        prepare(pm2, app)

    assert len(apps) > LISTED / 5
    by_name = {app.name: app for app in apps}
    items = pm2.jlist()
    assert len(items) == sum(app.instances for app in apps)
    found = [(item["name"], differences(by_name[item["name"]], Process(item))) for item in items]
    assert [(name, different) for name, different in found if different] == []
    # Long enough for a bad watcher, cron job or log file to show its effect.
    time.sleep(1.5)
    assert pm2.daemon_pids() == [daemon]
    assert len(pm2.jlist()) == len(items)
