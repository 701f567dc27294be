"""The whole shop on one machine: a mail server that prints what it gets, the partner, the web process and the worker.

Run it with ``python -m examples.shop``; end it with Ctrl-C.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

SETTINGS = Path(__file__).with_name("settings.toml")

ended = threading.Event()


def start(arguments: list[str], environment: dict[str, str], port: int | None = None) -> subprocess.Popen[bytes]:
    """Start a process, and wait until it listens at its port, if it has one.

    It gets a session of its own: so Ctrl-C reaches this process alone, which ends the others one after the other.
    """
    command = [sys.executable, "-u", "-m", *arguments]
    process = subprocess.Popen(command, env=environment, start_new_session=True)
    while port is not None and process.poll() is None and not ended.wait(0.1):
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                break
    return process


def main() -> int:
    """Start one process after the other, and end all of them when one ends or a signal comes."""
    parser = argparse.ArgumentParser(prog="python -m examples.shop", description="Run the shop, until Ctrl-C.")
    parser.add_argument("--web", type=int, default=8000, metavar="PORT", help="the port of the shop (default: 8000)")
    parser.add_argument("--partner", type=int, default=8001, metavar="PORT", help="of the partner (default: 8001)")
    parser.add_argument("--mail", type=int, default=1025, metavar="PORT", help="of the mail server (default: 1025)")
    ports = parser.parse_args()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    shop = {"SHOP_PARTNER_URL": f"http://127.0.0.1:{ports.partner}", "SHOP_SMTP_PORT": str(ports.mail)}
    environment = {**os.environ, **shop}
    subprocess.run([sys.executable, "-m", "examples.shop.migrate"], check=True, env=environment)
    partner = ["uvicorn", "examples.shop.partner:app", "--port", str(ports.partner), "--log-level", "warning"]
    web = ["uvicorn", "--factory", "examples.shop.web:create_app", "--port", str(ports.web)]
    processes = [
        start(["aiosmtpd", "--nosetuid", "--listen", f"127.0.0.1:{ports.mail}"], environment, ports.mail),
        start(partner, environment, ports.partner),
        start(web, environment, ports.web),
        start(["bgjobs", "run", "--config", str(SETTINGS)], environment),
    ]
    while not ended.wait(0.2) and all(process.poll() is None for process in processes):
        pass
    for process in reversed(processes):  # the worker first: its last mails need a mail server
        process.send_signal(signal.SIGINT)
        process.wait()
    return 0 if ended.is_set() else 1


if __name__ == "__main__":
    sys.exit(main())
