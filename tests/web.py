"""Web servers for the tests, in threads of this process, and requests to them."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable, Generator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPResponse
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import uvicorn

from stage import until


class Threads(ThreadingMixIn, WSGIServer):
    """Answers on several connections at once, as a browser wants it."""

    daemon_threads = True


class Quiet(WSGIRequestHandler):
    """Logs no requests."""

    def log_message(self, *_: object) -> None:
        """See the class."""


@contextmanager
def wsgi(application: Callable[..., Any]) -> Generator[int]:
    """The port of a WSGI server."""
    with make_server("127.0.0.1", 0, application, Threads, Quiet) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def asgi(application: Any) -> Generator[int]:
    """The port of an ASGI server."""
    server = uvicorn.Server(uvicorn.Config(application, port=0, log_level="warning", ws="none", lifespan="off"))
    thread = threading.Thread(target=server.run)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of uvicorn's own
        thread.start()
        try:
            until(lambda: server.started)
            yield server.servers[0].sockets[0].getsockname()[1]
        finally:
            server.should_exit = True
            thread.join()


def request(port: int, path: str, method: str = "GET", **headers: str) -> tuple[HTTPResponse, str]:
    """The response to a request, and its text."""
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response, response.read().decode()
    finally:
        connection.close()
