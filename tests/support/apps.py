"""Small Node applications, written into a directory of the test."""

from __future__ import annotations

import itertools
import json
import os
import random
import socket
from pathlib import Path
from typing import Iterator, List, Union

# Below the range from which Linux takes the ports of outgoing connections (32768 to 60999): a load generator that
# opens thousands of those must not find itself on a port that an application is about to listen on.
_PORTS = range(20000, 32000)
_SHARES = 8


def _share() -> Iterator[int]:
    """The ports of this process of pytest-xdist, in order, again and again from the first.

    A port of one test is never offered to a test that runs at the same time, and not soon again to the next test.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    size = len(_PORTS) // _SHARES
    ports = _PORTS[int(worker[2:]) % _SHARES * size :][:size]
    return itertools.islice(itertools.cycle(ports), random.randrange(len(ports)), None)


_share_of_ports = _share()


QUICK = {"pmx": False, "vizion": False}
"""For the processes of a test that starts many: PM2 neither loads @pm2/io, which is half the cost of a start, nor
looks for a repository."""


def free_port() -> int:
    """A TCP port of 127.0.0.1 that no process listens on."""
    return free_ports(1)


def free_ports(count: int) -> int:
    """The first of `count` such ports in a row."""
    found: List[int] = []
    while len(found) < count:
        port = next(_share_of_ports)
        if found and port != found[-1] + 1:
            found = []
        found = [*found, port] if _is_free(port) else []
    return found[0]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def http_app(
    directory: Union[str, Path],
    version: str = "1",
    port_env: Union[bool, int] = True,
    sigint: bool = True,
    crash: Union[str, float, None] = None,
    listen: bool = True,
    health: int = 200,
    handback: bool = False,
) -> str:
    """Write `app.js`, an HTTP server, and return its path.

    `/` answers `{version, pid, instance}`, `/env` the environment, `/health` `{status}` with the status
    code `health`. It listens on $PORT, or on `port_env` if that is a number. With `sigint` it finishes open requests
    on SIGINT; without it, SIGINT ends the app at once. `crash`: with "boot" the app throws at its start, with a number
    it throws that many seconds later. Without `listen` it stays up and never listens. With `handback` a cluster worker
    gives back a connection that the master hands to it while it closes. Only an app itself can do that; without it the
    connection is lost.
    """
    settings = {
        "version": version,
        "port": None if port_env is True else port_env,
        "sigint": sigint,
        "crash": crash,
        "listen": listen,
        "health": health,
        "handback": handback,
    }
    return _write(directory, "app.js", f"const settings = {json.dumps(settings)};\n{_HTTP}")


def worker_app(directory: Union[str, Path], version: str = "1") -> str:
    """Write `worker.js`, which prints `tick <version> <number>` every 100 ms, and return its path."""
    return _write(directory, "worker.js", f"const version = {json.dumps(version)};\n{_WORKER}")


def _write(directory: Union[str, Path], name: str, text: str) -> str:
    os.makedirs(directory, exist_ok=True)
    path = Path(directory, name)
    path.write_text(text, encoding="utf-8")
    return str(path)


_HTTP = """\
const cluster = require('cluster');
const http = require('http');

if (settings.crash === 'boot') throw new Error('crash at boot of version ' + settings.version);
const crash = () => { throw new Error('crash of version ' + settings.version); };
if (settings.crash) setTimeout(crash, settings.crash * 1000);

const answers = {
  '/': () => ({ version: settings.version, pid: process.pid, instance: process.env.NODE_APP_INSTANCE }),
  '/env': () => process.env,
  '/health': () => ({ status: settings.health === 200 ? 'ok' : 'failing' }),
};

const server = http.createServer((request, response) => {
  const answer = answers[request.url];
  const status = request.url === '/health' ? settings.health : answer ? 200 : 404;
  response.writeHead(status, { 'Content-Type': 'application/json', Connection: 'close' });
  response.end(JSON.stringify(answer ? answer() : {}));
});

if (settings.sigint) process.on('SIGINT', () => {
  if (!server.listening) process.exit(0);
  server.close(() => {
    if (!settings.handback || !cluster.isWorker) process.exit(0);
    process.on('disconnect', () => process.exit(0));
    cluster.worker.disconnect();
  });
});

if (settings.listen) {
  server.listen(settings.port || process.env.PORT, '127.0.0.1', () => {
    console.log('version ' + settings.version + ' listens');
    if (process.send) process.send('ready');
  });
} else {
  setInterval(() => {}, 1000);
}
"""

_WORKER = """\
let number = 0;
setInterval(() => console.log('tick ' + version + ' ' + number++), 100);
process.on('SIGINT', () => process.exit(0));
if (process.send) process.send('ready');
"""
