"""The page as an ASGI application, a WSGI application, and an answer that any other host can pass on."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from base64 import b64encode
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from datetime import UTC, datetime, tzinfo
from http import HTTPStatus
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from bgjobs import BackgroundJobs, RunReport

from .model import RAN, Picture, Run, picture
from .render import STYLE, Frame, render

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
StartResponse = Callable[[str, list[tuple[str, str]]], object]

#: Nothing is loaded, run, framed or sent; the one style sheet is the one that the page has.
POLICY = "; ".join(
    [
        "default-src 'none'",
        f"style-src 'sha256-{b64encode(hashlib.sha256(STYLE.encode()).digest()).decode()}'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    ]
)

#: Longer reasons and errors are cut.
LONGEST = 500


class Answer(NamedTuple):
    """An HTTP response, for a host to pass on."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class StatusPage:
    """One page about the jobs, and the same as JSON. It reads, and changes nothing.

    It has no authentication of its own: put it behind that of its host.

    Args:
        jobs: The jobs of this process.
        title: Stands on top of the page.
        timezone: The zone of the times that are shown: a name such as ``"Europe/Rome"`` or a ``tzinfo``.
        latest: How many of the latest runs of each job are kept and shown.
        refresh: Seconds until a browser loads the page again; ``None`` for never.
    """

    def __init__(
        self,
        jobs: BackgroundJobs,
        *,
        title: str = "Background jobs",
        timezone: str | tzinfo = "UTC",
        latest: int = 40,
        refresh: int | None = None,
    ) -> None:
        zone = UTC if timezone == "UTC" else ZoneInfo(timezone) if isinstance(timezone, str) else timezone
        self.jobs = jobs
        self.frame = Frame(title, zone, latest, refresh, socket.gethostname())
        self._history: dict[str, deque[Run]] = {}
        self._lock = threading.Lock()
        jobs.on_run_end(self.record)

    def record(self, report: RunReport) -> None:
        """Remember how a run ended, or why an occurrence did not run: an observer of `on_run_end`."""
        rows = {row.key: row for row in self.jobs.status()} if report.key not in self._history or report.error else {}
        reason = report.reason
        if report.error is not None:  # the text of the row has no passwords in it
            name, row = type(report.error).__name__, rows.get(report.key)
            told = row.last_error if row is not None else None
            reason = told if told is not None and told.startswith(name) else name
        run = Run(report.started_at or report.scheduled_at, report.seconds, report.outcome, reason and reason[:LONGEST])
        with self._lock:
            if report.key not in self._history:
                for gone in self._history.keys() - rows.keys():
                    del self._history[gone]
            runs = self._history.setdefault(report.key, deque(maxlen=self.frame.latest))
            if runs and runs[-1].outcome == run.outcome and run.outcome not in RAN:
                run = run._replace(times=runs.pop().times + 1)
            runs.append(run)

    def picture(self) -> Picture:
        """All jobs as they are now."""
        with self._lock:
            history = {key: tuple(runs) for key, runs in self._history.items()}
        return picture(self.jobs.status(), self.jobs.health(), history, datetime.now(UTC))

    def answer(self, method: str, path: str, root: str = "") -> Answer:
        """What to answer to a request, for hosts that mount neither ASGI nor WSGI applications.

        Args:
            method: Of the request; ``GET`` and ``HEAD`` are allowed.
            path: The path below the page's own address: nothing or ``/`` for the page, or ``/status.json``.
            root: The page's own address, without a slash at its end.
        """
        if method not in ("GET", "HEAD"):
            answer = _answer(HTTPStatus.METHOD_NOT_ALLOWED, "text/plain", "Only GET and HEAD are allowed.\n")
            answer.headers.append(("Allow", "GET, HEAD"))
        elif path in ("", "/"):
            text = render(self.picture(), self.frame, f"{root}/status.json")
            answer = _answer(HTTPStatus.OK, "text/html", text)
        elif path == "/status.json":
            text = json.dumps(self.picture().as_dict(), indent=1, allow_nan=False)
            answer = _answer(HTTPStatus.OK, "application/json", text)
        else:
            answer = _answer(HTTPStatus.NOT_FOUND, "text/plain", "There are the page and status.json, and no more.\n")
        return answer._replace(body=b"") if method == "HEAD" else answer

    async def asgi(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The page as an ASGI application, to be mounted."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})
            return
        if scope["type"] != "http":
            raise RuntimeError(f"the status page answers HTTP only, not {scope['type']}")
        root = scope.get("root_path", "")
        answer = self.answer(scope["method"], scope["path"].removeprefix(root), root)
        headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in answer.headers]
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": answer.body})

    def wsgi(self, environ: dict[str, Any], start_response: StartResponse) -> Iterable[bytes]:
        """The page as a WSGI application, to be mounted."""
        root = environ.get("SCRIPT_NAME", "").encode("latin-1").decode("utf-8", "replace")
        answer = self.answer(environ["REQUEST_METHOD"], environ.get("PATH_INFO", ""), root)
        start_response(f"{answer.status} {HTTPStatus(answer.status).phrase}", answer.headers)
        return [answer.body]


def _answer(status: HTTPStatus, kind: str, text: str) -> Answer:
    body = text.encode("utf-8", "replace")  # a text from outside may have half a character in it
    headers = [
        ("Content-Type", f"{kind}; charset=utf-8"),
        ("Content-Length", str(len(body))),
        ("Cache-Control", "no-store"),
        ("Content-Security-Policy", POLICY),
        ("X-Content-Type-Options", "nosniff"),
        ("Referrer-Policy", "no-referrer"),
    ]
    return Answer(status, headers, body)
