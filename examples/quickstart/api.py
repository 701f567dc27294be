"""A small HTTP API on 127.0.0.1 for the quickstart to talk to: real JSON over real HTTP, no network needed."""

from __future__ import annotations

import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

NAMES = ["Ada", "Grace", "Edsger", "Barbara", "Donald", "Frances", "Alan", "Radia"]


class Handler(BaseHTTPRequestHandler):
    """Answers ``GET /users``; every other path is out of order (503)."""

    requests = 0
    lock = threading.Lock()

    def do_GET(self) -> None:
        """Send the users as JSON. With each request one more has joined, and the first has a new address."""
        if self.path != "/users":
            self.send_error(503, "out of order")
            return
        with Handler.lock:
            Handler.requests += 1
            number = Handler.requests
        users = [
            {"id": i, "name": name, "email": f"{name.lower()}@example.com"}
            for i, name in enumerate(NAMES[: number + 1], start=1)
        ]
        users[0]["email"] = f"ada+{number}@example.com"
        body = json.dumps(users).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is http.server's
        """Stay silent: the jobs tell what they do."""


@contextmanager
def served() -> Generator[str]:
    """Serve the API on a free port for the time of a ``with`` block, and give its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="api", daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
