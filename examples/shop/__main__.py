"""The whole shop on one machine: a mail server that prints what it gets, the partner, the web process and the worker.

Run it with ``python -m examples.shop``; end it with Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

SETTINGS = Path(__file__).with_name("settings.toml")


def main() -> int:
    """Start one process after the other, and end all of them when one ends or a signal comes."""
    parser = argparse.ArgumentParser(prog="python -m examples.shop", description=main.__doc__)
    parser.add_argument("--web", type=int, default=8000, metavar="PORT", help="the port of the shop (default: 8000)")
    parser.add_argument("--partner", type=int, default=8001, metavar="PORT", help="of the partner (default: 8001)")
    parser.add_argument("--mail", type=int, default=1025, metavar="PORT", help="of the mail server (default: 1025)")
    ports = parser.parse_args()
    environment = {
        **os.environ,
        "SHOP_PARTNER_URL": f"http://127.0.0.1:{ports.partner}",
        "SHOP_SMTP_PORT": str(ports.mail),
    }
    python = [sys.executable, "-u", "-m"]
    subprocess.run([*python, "examples.shop.migrate"], check=True, env=environment)
    commands = [
        ["aiosmtpd", "--nosetuid", "--listen", f"127.0.0.1:{ports.mail}"],
        ["uvicorn", "examples.shop.partner:app", "--port", str(ports.partner), "--log-level", "warning"],
        ["uvicorn", "--factory", "examples.shop.web:create_app", "--port", str(ports.web)],
        ["bgjobs", "run", "--config", str(SETTINGS)],
    ]
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    # In sessions of their own: Ctrl-C reaches this process alone, which then ends the others.
    processes = [subprocess.Popen([*python, *command], env=environment, start_new_session=True) for command in commands]
    while not ended.wait(0.2) and all(process.poll() is None for process in processes):
        pass
    for process in reversed(processes):  # the worker first: its last mails still need a mail server
        process.send_signal(signal.SIGINT)
        process.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main())
