"""The modules on every Python of this machine that a target may have: 3.8 and newer, with nothing installed.

Core: the oldest of them. Full: all.
"""

from __future__ import annotations

import glob
import json
import os
import pwd
import re
import subprocess
import sys
from pathlib import Path
from typing import Dict, Tuple

import pytest
from support import apps, tiers
from support.pm2 import Pm2Home

OLDEST = (3, 8)
PLAY = """
- hosts: all
  gather_facts: false
  connection: local
  tasks:
    - name: Start
      nodeops.pm2.pm2_process: &process
        pm2_home: "{{ home }}"
        pm2_executable: "{{ executable }}"
        namespace: "{{ inventory_hostname }}"
        apps:
          - name: worker
            script: "{{ script }}"
            env: {GREETING: "für {{ inventory_hostname }}"}
        ready: {min_uptime: 0.2, log: ["tick"]}
    - name: Start again
      nodeops.pm2.pm2_process: *process
      register: again
    - name: Read and save
      nodeops.pm2.pm2_info:
        pm2_home: "{{ home }}"
        namespace: "{{ inventory_hostname }}"
      register: info
    - nodeops.pm2.pm2_save:
        pm2_home: "{{ home }}"
        namespace: "{{ inventory_hostname }}"
      register: saved
    - ansible.builtin.assert:
        that:
          - again is not changed
          - saved is not changed
          - info.processes | map(attribute='running') | list == [true]
          - info.drift == []
"""


def pythons() -> Dict[Tuple[int, int], str]:
    """One interpreter for each minor version found in PATH and in pyenv's directory; at least the one we run on."""
    home = pwd.getpwuid(os.geteuid()).pw_dir
    places = [*os.environ["PATH"].split(os.pathsep), *glob.glob(os.path.join(home, ".pyenv/versions/*/bin"))]
    found = {sys.version_info[:2]: sys.executable}
    for place in places:
        for path in glob.glob(os.path.join(glob.escape(place), "python3.*")):
            match = re.fullmatch(r"python3\.(\d+)", os.path.basename(path))
            if match and os.access(path, os.X_OK):
                version = (3, int(match.group(1)))
                works = subprocess.run([path, "-c", ""], check=False, capture_output=True).returncode == 0
                if version >= OLDEST and works:
                    found.setdefault(version, path)
    return found


@pytest.mark.parametrize("which", tiers.sample(slice(1), slice(None)))
def test_every_python_of_a_target(pm2_7: Pm2Home, tmp_path: Path, which: slice) -> None:
    """First run, second run, reading and saving, one host for each Python, all on one daemon."""
    chosen = sorted(pythons().items())[which]
    hosts = {f"py{major}{minor}": {"ansible_python_interpreter": path} for (major, minor), path in chosen}
    (tmp_path / "hosts.json").write_text(json.dumps({"all": {"hosts": hosts}}), encoding="utf-8")
    (tmp_path / "play.yml").write_text(PLAY, encoding="utf-8")
    script = apps.worker_app(tmp_path / "worker")
    variables = {"home": pm2_7.home, "executable": pm2_7.executable, "script": script}
    done = subprocess.run(
        ["ansible-playbook", "-i", "hosts.json", "play.yml", "-e", json.dumps(variables)],
        cwd=tmp_path,
        check=False,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=240,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(pm2_7.daemon_pids()) == 1
    print("ran on Python " + ", ".join(f"{major}.{minor}" for (major, minor), _path in chosen))
