"""The Python service, which scores leads: a stand-in for FastAPI with the standard library."""

from __future__ import annotations

import hmac
import json
import os
import signal
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Dict

from sales_scoring import score

VERSION = json.loads((Path(__file__).parent.parent / "package.json").read_text(encoding="utf-8"))["version"]
TOKEN = os.environ["AI_SERVICE_TOKEN"]


class Handler(BaseHTTPRequestHandler):
    """GET /health, and POST /score with the token."""

    def do_GET(self) -> None:
        if self.path == "/health":
            self._answer(200, {"status": "ok", "version": VERSION, "python": sys.prefix})
        else:
            self._answer(404, {"error": "no such page"})

    def do_POST(self) -> None:
        lead = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        given = self.headers.get("Authorization", "")
        if not hmac.compare_digest(given, "Bearer " + TOKEN):
            self._answer(401, {"error": "wrong token"})
        elif self.path == "/score":
            self._answer(200, {"score": score(json.loads(lead))})
        else:
            self._answer(404, {"error": "no such page"})

    def _answer(self, status: int, body: Dict[str, Any]) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_args: Any) -> None:
        """Log nothing: a line per request is too much for a log that is kept."""


def main() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ.get("AI_SERVICE_PORT", "8200"))), Handler)
    signal.signal(signal.SIGINT, lambda *_arguments: threading.Thread(target=server.shutdown).start())
    print("ai-service", VERSION, "listens", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
