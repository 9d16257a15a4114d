# Copyright (c) 2026, nodeops.pm2 contributors
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a schedule writes on the host, and what of it is removed: of several environments, with nothing to back up.

Core: what is refused. Full: the rest, of which test_schedule.py has a part in core.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, Mapping, Tuple

import pytest
from support import playbooks
from support.environments import Outcome

SHOP = "shop"
pytestmark = pytest.mark.timeout(600)  # seconds; several runs of ansible-playbook, and other tests beside them


class Host:
    """A host whose environments are scheduled by systemd."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.units = directory / "units"

    def play(self, environments: Mapping[str, Mapping[str, Any]]) -> Outcome:
        """Bring the schedules of the environments to what is defined."""
        hosts = {name: {**self.describe(name), **changes} for name, changes in environments.items()}
        inventory = self.directory / "inventory.json"
        inventory.write_text(json.dumps({"all": {"hosts": hosts}}))
        return Outcome(*playbooks.run("backup", inventory))

    def describe(self, name: str) -> Dict[str, Any]:
        """The variables of an environment."""
        return {
            "ansible_connection": "local",
            "ansible_python_interpreter": "{{ ansible_playbook_python }}",
            "backup_dest": str(self.directory / name),
            "backup_processes": False,
            "backup_databases": ["shop"],
            "backup_now": False,
            "backup_scheduler": "systemd",
            "backup_cron_file": str(self.directory / "cron"),
            "backup_systemd_dir": str(self.units),
        }

    def succeeds(self, name: str, **changes: Any) -> Dict[str, Any]:
        """It has to succeed; what it says of itself."""
        done = self.play({name: changes})
        assert done.code == 0, done.output
        return dict(done.told_of_all[name])

    def files(self) -> Dict[str, int]:
        """What stands in the directory of the units."""
        return {str(path.relative_to(self.units)): path.lstat().st_ino for path in self.units.rglob("*")}


@pytest.fixture(name="host")
def _host(tmp_path: Path) -> Host:
    return Host(tmp_path)


@pytest.mark.full
def test_the_units_of_another_environment_stay(host: Host) -> None:
    """Also where its name begins with that of this one, and what somebody has put beside them."""
    host.succeeds("shop-production")
    drop_in = host.units / "nodeops-pm2-shop-backup.service.d" / "own.conf"
    drop_in.parent.mkdir()
    drop_in.write_text("[Service]\nNice=19\n")
    others = host.files()
    assert len(others) == 5 + 3 + 2 + 2  # units, links, their directories, the drop-in

    assert host.succeeds(SHOP)["result"] == "done"
    assert others.items() <= host.files().items()
    assert len(host.files()) == len(others) + 5 + 3
    assert host.succeeds(SHOP, backup_scheduler="none")["result"] == "done"
    assert host.files() == others


@pytest.mark.full
def test_a_change_of_the_schedule_is_told(host: Host) -> None:
    """And where the destination ends with a slash, the job is beside it all the same."""
    dest = str(host.directory / SHOP)
    assert host.succeeds(SHOP, backup_dest=dest + "/")["result"] == "done"
    assert [path.name for path in host.directory.glob("shop*")] == ["shop.job"]
    assert host.succeeds(SHOP, backup_dest=dest + "/")["result"] == "unchanged"
    assert host.succeeds(SHOP, backup_dest=dest + "/", backup_random_delay="1min")["result"] == "done"


NEVER: Dict[str, Tuple[Dict[str, Any], str]] = {
    "hours": ({"backup_schedule": "0 24 * * *", "backup_drill_schedule": "0 2 * * sat,8"}, "0 24 * * *, 0 2 * * sat,8"),
    "systemds": ({"backup_schedule": "*-*-* 02:00"}, "These are not: *-*-* 02:00"),
    "dotted": ({"backup_cron_file": "/etc/cron.d/shop.backup"}, "/etc/cron.d/shop.backup"),
    "files": ({"backup_files": ["/srv/shop/.env"]}, "/srv/shop/.env would be in no backup"),
}
"""Variables of an environment, and words of the message that refuses them."""


def test_what_would_never_run_is_refused(host: Host) -> None:
    run = host.play({name: {"backup_scheduler": "cron", **variables} for name, (variables, _says) in NEVER.items()})
    assert run.code == 2, run.output
    for name, (_variables, says) in NEVER.items():
        reason = str(run.told_of_all[name]["reason"])
        assert says in reason
        assert reason.endswith("Nothing was changed.")
    assert [path.name for path in host.directory.iterdir()] == ["inventory.json"]
