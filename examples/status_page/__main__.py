"""The status page of some jobs that misbehave, served at a port of this machine.

Run it with ``python -m examples.status_page``; end it with Ctrl-C.
"""

from __future__ import annotations

import argparse
import threading
from contextlib import suppress
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from bgjobs import BackgroundJobs, BgjobsError

from . import StatusPage
from .demo import demo_jobs, make_runs


class Threads(ThreadingMixIn, WSGIServer):
    """Answers on several connections at once, as a browser wants it."""

    daemon_threads = True


class Quiet(WSGIRequestHandler):
    """Logs no requests."""

    def log_message(self, *_: object) -> None:
        """See the class."""


def fill(jobs: BackgroundJobs) -> None:
    """Have runs made, unless the jobs are closed first."""
    with suppress(BgjobsError):
        make_runs(jobs)


def main(port: int) -> None:
    """Run the jobs and serve their page until Ctrl-C."""
    jobs = demo_jobs()
    page = StatusPage(jobs)
    with suppress(KeyboardInterrupt), jobs, make_server("127.0.0.1", port, page.wsgi, Threads, Quiet) as server:
        threading.Thread(target=fill, args=[jobs], daemon=True).start()
        print(f"The page is at http://127.0.0.1:{server.server_port}/", flush=True)
        server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m examples.status_page", description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, default=8000, help="where it is served; 0 for any (default: 8000)")
    main(parser.parse_args().port)
