"""The shop of examples/shop as a whole, in processes as its README starts them, and its files for deployment."""

from __future__ import annotations

import configparser
import importlib.util
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from importlib.metadata import version
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import yaml

from bgjobs import BackgroundJobs, BackgroundJobsSettings
from examples.shop.config import ShopSettings
from examples.shop.web import create_app
from examples.shop.worker import background_jobs
from servers import free_port
from shop_world import World, world
from stage import LIMIT
from test_examples import ended, rows, running, until

ROOT = Path(__file__).parent.parent
SHOP = ROOT / "examples" / "shop"
DEPLOY = SHOP / "deploy"
SETTINGS = str(SHOP / "settings.toml")
WEB = ["-m", "uvicorn", "--factory", "examples.shop.web:create_app"]
WORKER = ["-m", "bgjobs", "run", "--config", SETTINGS]
EVERY_SECOND = {"BGJOBS__JOBS__EMAIL_NOTIFICATION_JOB__CRON": "* * * * * *"}


def place_order(address: str, email: str) -> Any:
    """Place an order over HTTP."""
    body = json.dumps({"email": email, "product_id": 1}).encode()
    with urlopen(Request(f"{address}/orders", body, {"Content-Type": "application/json"}), timeout=LIMIT) as response:
        assert response.status == 201
        return json.load(response)


def address_of(web: subprocess.Popen[str]) -> str:
    """Where a web process listens, once it does."""
    assert web.stderr is not None
    return next(found[1] for line in web.stderr if (found := re.search(r"running on (http://[\w.:]+)", line)))


# -- processes -------------------------------------------------------------------------------------------------------


def confirmed(shop: World, folder: Path, workers: int, **more: str) -> list[str]:
    """Three orders over HTTP, confirmed by the workers, all of which a SIGTERM ends; who got a mail."""
    customers = [f"customer-{number}@example.com" for number in range(3)]
    environment = {**shop.environment, **EVERY_SECOND, **more}
    with ExitStack() as processes:
        web = processes.enter_context(running(folder, *WEB, "--port", "0", **environment))
        crew = [processes.enter_context(running(folder, *WORKER, **environment)) for _ in range(workers)]
        address = address_of(web)
        for customer in customers:
            assert place_order(address, customer)["status"] == "processing"
        until(lambda: {*customers} <= {recipient for recipient, _ in shop.mailbox.mails}, crew[0])
        for worker in crew:
            ended(worker, signal.SIGTERM)
        web.terminate()
        _, err = web.communicate(timeout=LIMIT)
    assert "Application shutdown complete" in err
    assert web.returncode == -signal.SIGTERM  # uvicorn closes everything, and then lets the signal have its way
    return [recipient for recipient, _ in shop.mailbox.mails]


def test_an_order_over_http_is_confirmed_by_mail(tmp_path: Path) -> None:
    """On SQLite: the web process takes it, the worker confirms it, and both end on SIGTERM."""
    with world(f"sqlite+aiosqlite:///{tmp_path / 'shop.db'}", tmp_path) as shop:
        assert confirmed(shop, tmp_path, workers=1) == [f"customer-{number}@example.com" for number in range(3)]


def test_two_workers_confirm_each_order_once(tmp_path: Path, postgresql: str) -> None:
    """On PostgreSQL, where the workers share a claim store as in the files for deployment."""
    with world(postgresql, tmp_path) as shop:
        recipients = confirmed(shop, tmp_path, workers=2, BGJOBS__CLAIMS__URL=postgresql)
    assert sorted(recipients) == [f"customer-{number}@example.com" for number in range(3)]


def test_the_demonstration_runs_and_ends_on_ctrl_c(tmp_path: Path) -> None:
    """One command starts everything; the mail is printed; SIGINT ends everything, and the status is 0."""
    web, partner, mail = (str(free_port()) for _ in range(3))
    arguments = ["-m", "examples.shop", "--web", web, "--partner", partner, "--mail", mail]
    with running(tmp_path, *arguments, **EVERY_SECOND) as process:
        try:
            place_order(address_of(process), "ada@example.com")
            assert process.stdout is not None
            assert any(line.startswith("Subject: Your order 1") for line in process.stdout)
            until(lambda: rows(tmp_path / "shop.db", "SELECT count(*) FROM users") == 4, process)
            ended(process, signal.SIGINT)
        finally:  # a mere kill would leave its processes behind
            process.terminate()
            process.wait(LIMIT)


# -- deployment ------------------------------------------------------------------------------------------------------


def services() -> Iterator[tuple[str, list[str], dict[str, str]]]:
    """The name, the command and the variables of every container and service in the files for deployment."""
    found = re.search(r"^CMD (.*)$", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert found is not None
    yield "image", json.loads(found[1]), {}
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
    for name, service in compose["services"].items():
        if service["image"] == "shop":
            yield f"compose-{name}", service.get("command", []), service["environment"]
    documents = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text(encoding="utf-8")))
    variables = {
        k: v for document in documents for k, v in (document.get("stringData") or document.get("data") or {}).items()
    }
    for document in documents:
        if document["kind"] == "Deployment":
            pod = document["spec"]["template"]["spec"]
            for container in pod["initContainers"] + pod["containers"]:
                yield f"{document['metadata']['name']}-{container['name']}", container.get("command", []), variables
    for path in sorted(DEPLOY.glob("*.service")):
        unit = configparser.ConfigParser(interpolation=None)
        unit.read(path)
        for entry in ("ExecStartPre", "ExecStart"):
            program, *arguments = shlex.split(unit["Service"][entry])
            yield f"{path.stem}-{entry}", [Path(program).name, *arguments], {}


@pytest.mark.parametrize(("command", "variables"), [pytest.param(*rest, id=name) for name, *rest in services()])
def test_what_is_deployed_can_be_started(command: list[str], variables: dict[str, str], tmp_path: Path) -> None:
    """Every command is one that exists, with arguments that it takes, and every variable one that is read."""
    names = {name for name in variables if not name.startswith("BGJOBS__")}
    assert names <= {f"SHOP_{name.upper()}" for name in ShopSettings.model_fields}
    if command[:1] == ["bgjobs"]:
        once = ["--once", "CleanupOldLogsJob"] if command[1] == "run" else []
        with world(f"sqlite+aiosqlite:///{tmp_path / 'shop.db'}", tmp_path) as shop:
            environment = {**os.environ, **variables, **shop.environment}
            program = [sys.executable, "-m", *command, *once]
            done = subprocess.run(
                program, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=LIMIT, check=False
            )
        assert done.returncode == 0, done.stderr
    elif "uvicorn" in command[:1]:
        reference = next(argument for argument in command if ":" in argument)
        module, name = reference.split(":")
        assert callable(getattr(importlib.import_module(module), name))
    elif command:
        assert command[:2] == ["python", "-m"]
        assert importlib.util.find_spec(command[2]) is not None


def test_the_image_copies_files_that_are_there() -> None:
    """Each source of a COPY is in the repository."""
    copies = re.findall(r"^COPY (.*) \S+$", (DEPLOY / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert [source for line in copies for source in line.split() if not (ROOT / source).exists()] == []


def test_a_worker_gets_the_time_that_a_close_may_take() -> None:
    """Whoever ends a worker waits longer than `shutdown_timeout` and five seconds."""
    texts = [
        (DEPLOY / name).read_text(encoding="utf-8")
        for name in ("compose.yaml", "kubernetes.yaml", "shop-worker.service")
    ]
    pattern = r"^\s*(?:stop_grace_period: |terminationGracePeriodSeconds: |TimeoutStopSec=)(\d+)"
    found = [int(seconds) for text in texts for seconds in re.findall(pattern, text, re.MULTILINE)]
    assert len(found) == 3
    assert min(found) >= BackgroundJobsSettings(config_file=SETTINGS).shutdown_timeout + 5


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
@pytest.mark.parametrize("name", ["shop-web.service", "shop-worker.service"])
def test_systemd_takes_the_units(name: str, tmp_path: Path) -> None:
    """`systemd-analyze verify` finds nothing wrong, with this Python in place of that of the server."""
    text = (DEPLOY / name).read_text(encoding="utf-8").replace("/srv/shop/.venv", sys.prefix)
    (tmp_path / name).write_text(text.replace("User=shop", "User=root"), encoding="utf-8")
    command = ["systemd-analyze", "verify", "--man=no", str(tmp_path / name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_example_of_an_env_file_is_read(tmp_path: Path) -> None:
    """As `.env`, by the shop and by the worker; every name in it exists."""
    shutil.copy(SHOP / ".env.example", tmp_path / ".env")
    text = (SHOP / ".env.example").read_text(encoding="utf-8")
    names = {name.lower() for name in re.findall(r"^#?SHOP_(\w+)=", text, re.MULTILINE)}
    assert names == {*ShopSettings.model_fields}
    with running(tmp_path, "-m", "bgjobs", "check", "--config", SETTINGS) as process:
        out, _ = ended(process)
    assert re.search(r"EmailNotificationJob +\*/5 \* \* \* \* \* +Europe/Rome", out)
    assert re.search(r"EmailNotificationJob +cron .*\.env", out)


def test_the_requirements_are_those_of_the_tests() -> None:
    """Everything that requirements.txt names is installed here."""
    for line in (SHOP / "requirements.txt").read_text(encoding="utf-8").splitlines():
        if (name := re.match(r"[\w-]+", line)) is not None:
            assert version(name[0])


def test_the_documentation_lists_every_job() -> None:
    """The README of the shop has each one, and the page for people from .NET its schedule, too."""
    cache: BackgroundJobs = create_app().state.shop.jobs
    worker = background_jobs(ShopSettings(), BackgroundJobsSettings.defaults())
    schedules = {row.key: row.cron for row in [*worker.status(), *cache.status()]}
    readme = (SHOP / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+Job)` ", readme, re.MULTILINE) == [*schedules]
    page = (ROOT / "docs" / "from-dotnet.md").read_text(encoding="utf-8")
    assert dict(re.findall(r"^\| `(\w+Job)` \| `([^`]+)` ", page, re.MULTILINE)) == schedules
