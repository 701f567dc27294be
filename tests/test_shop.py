"""The jobs of examples/shop, each through the facade, with its effect on a real database, mail server and partner."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Generator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from apscheduler.triggers.date import DateTrigger
from httpx import ASGITransport, AsyncClient
from sqlalchemy import create_engine, delete, make_url, select
from sqlalchemy.orm import Session
from sqlalchemy.pool import NullPool

from bgjobs import BackgroundJobs, BackgroundJobsSettings, RunReport
from examples.shop.jobs import DailyReportJob, WeeklyDigestJob
from examples.shop.models import Article, Base, EmailLog, Order, OrderStatus, Product, User, WeatherData, now
from examples.shop.web import create_app
from examples.shop.worker import background_jobs
from servers import database, postgresql_programs
from shop_world import World, world
from stage import LIMIT, Waiter, eventually

SETTINGS = Path(__file__).parent.parent / "examples" / "shop" / "settings.toml"
ADMIN = "admin@example.com"


@pytest.fixture(name="shop", params=["sqlite", "postgresql"])
def _shop(request: pytest.FixtureRequest, tmp_path: Path) -> Generator[World]:
    """A shop on SQLite, then on PostgreSQL."""
    on_sqlite = f"sqlite+aiosqlite:///{tmp_path / 'shop.db'}"
    with world(on_sqlite if request.param == "sqlite" else request.getfixturevalue("postgresql"), tmp_path) as found:
        yield found


@pytest.fixture(name="jobs")
def _jobs(shop: World) -> Generator[BackgroundJobs]:
    """The worker's jobs, warm, with its settings file; they run when a test says so, and not on their schedules."""
    keys = [row.key for row in background_jobs(shop.settings, BackgroundJobsSettings.defaults()).status()]
    off: Any = {key: {"enabled": False} for key in keys}
    with background_jobs(shop.settings, BackgroundJobsSettings(config_file=SETTINGS, jobs=off)) as jobs:
        yield jobs


def run(jobs: BackgroundJobs, key: str, **kwargs: object) -> RunReport:
    """Run a job, and wait for its end."""
    return jobs.wait(jobs.run_now(key, kwargs=kwargs or None), timeout=LIMIT)


def runs(jobs: BackgroundJobs, key: str, **kwargs: object) -> None:
    """Run a job, which succeeds."""
    report = run(jobs, key, **kwargs)
    assert report.outcome == "succeeded", report.error


def put(shop: World, *rows: Base) -> None:
    """Put rows into the database."""
    with Session(shop.engine) as session, session.begin():
        session.add_all(rows)


def rows(shop: World, table: type[Any]) -> Sequence[Any]:
    """All rows of a table, the oldest first."""
    with Session(shop.engine) as session:
        return session.scalars(select(table).order_by(table.id)).all()


def order(**values: Any) -> Order:
    """An order of two chairs."""
    return Order(**{"email": "ada@example.com", "product_id": 2, "quantity": 2, "total": 25800} | values)


# -- orders ----------------------------------------------------------------------------------------------------------


def test_new_orders_are_confirmed_once(shop: World, jobs: BackgroundJobs) -> None:
    """Each order gets one mail, which the e-mail log has."""
    put(shop, order(), order(email="grace@example.com"), order(confirmed_at=now()))
    runs(jobs, "EmailNotificationJob")
    runs(jobs, "EmailNotificationJob")
    assert shop.mailbox.mails == [("ada@example.com", "Your order 1"), ("grace@example.com", "Your order 2")]
    assert "258.00 EUR" in shop.mailbox.text("Your order 1")
    assert [(row.recipient, row.subject) for row in rows(shop, EmailLog)] == shop.mailbox.mails


def test_a_recipient_who_is_refused_does_not_hold_up_the_others(shop: World, jobs: BackgroundJobs) -> None:
    """The run fails, but the other order is confirmed, for good; a later run sends what is left."""
    put(shop, order(), order(email="grace@example.com"))
    shop.mailbox.refused.add("ada@example.com")
    report = run(jobs, "EmailNotificationJob")
    assert str(report.error) == "the mail server refuses ada@example.com"
    assert [row.confirmed_at is not None for row in rows(shop, Order)] == [False, True]

    shop.mailbox.refused.clear()
    runs(jobs, "EmailNotificationJob")
    confirmations = [mail for mail in shop.mailbox.mails if mail[0] != ADMIN]
    assert confirmations == [("grace@example.com", "Your order 2"), ("ada@example.com", "Your order 1")]


def test_orders_that_nobody_touches_are_cancelled(shop: World, jobs: BackgroundJobs) -> None:
    """After 24 hours, and only those that are being processed."""
    old, young = now() - timedelta(hours=25), now() - timedelta(hours=23)
    put(shop, order(updated_at=old), order(updated_at=young), order(updated_at=old, status=OrderStatus.COMPLETED))
    runs(jobs, "OrderStatusUpdateJob")
    assert [row.status for row in rows(shop, Order)] == ["cancelled", "processing", "completed"]
    assert rows(shop, Order)[0].cancelled_reason == "no update within 1 day, 0:00:00"


# -- reports ---------------------------------------------------------------------------------------------------------


def late(jobs: BackgroundJobs, job: type[Any], fire_time: datetime) -> RunReport:
    """The run of a job that was due at a time in the past."""
    ended = Waiter()
    jobs.on_run_end(ended)
    jobs.add_background_job(job, key="late", trigger=DateTrigger(fire_time))
    report: RunReport = ended.wait()[0]
    return report


def test_the_daily_report_is_about_the_day_before_its_fire_time(shop: World, jobs: BackgroundJobs) -> None:
    """However late it runs; and a day begins at midnight in the shop's zone, which is 22:00 UTC in summer."""
    put(
        shop,
        order(created_at=datetime(2026, 7, 5, 21, 59, tzinfo=UTC)),
        order(created_at=datetime(2026, 7, 5, 22, 0, tzinfo=UTC), total=100),
        order(created_at=datetime(2026, 7, 6, 21, 59, tzinfo=UTC), total=250, status=OrderStatus.COMPLETED),
        order(created_at=datetime(2026, 7, 6, 22, 0, tzinfo=UTC)),
    )
    assert late(jobs, DailyReportJob, datetime(2026, 7, 6, 22, 30, tzinfo=UTC)).outcome == "succeeded"
    assert shop.mailbox.mails == [(ADMIN, "Daily report 2026-07-06")]
    text = shop.mailbox.text("Daily report 2026-07-06")
    assert text.splitlines() == ["Orders: 2", "Revenue: 3.50 EUR", "Processing: 1", "Completed: 1", "Cancelled: 0"]


def test_the_digest_goes_to_each_subscriber_once(shop: World, jobs: BackgroundJobs) -> None:
    """It has the most read articles of the week; whoever was left out by a run that failed gets it from the next."""
    monday = datetime(2026, 7, 6, 7, 0, tzinfo=UTC)
    put(
        shop,
        *(User(external_id=n, name=name, email=f"{name}@example.com") for n, name in enumerate(["ada", "grace"])),
        User(external_id=3, name="alan", email="alan@example.com", email_subscription=False),
        Article(title="Too old", views=900, published_at=monday - timedelta(days=8)),
        Article(title="Read by some", views=10, published_at=monday - timedelta(days=6)),
        Article(title="Read by many", views=80, published_at=monday - timedelta(days=1)),
    )
    with Session(shop.engine) as session, session.begin():
        session.execute(delete(Article).where(Article.published_at > monday))  # those to begin with
    subject = "Your week until 06 July 2026"
    shop.mailbox.refused.add("ada@example.com")
    assert late(jobs, WeeklyDigestJob, monday).outcome == "failed"
    shop.mailbox.refused.clear()
    jobs.remove("late")
    assert late(jobs, WeeklyDigestJob, monday).outcome == "succeeded"
    digests = [mail for mail in shop.mailbox.mails if mail[0] != ADMIN]
    assert digests == [("grace@example.com", subject), ("ada@example.com", subject)]
    text = str(shop.mailbox.arrived.seen[0].get_payload())
    assert text.splitlines() == ["Dear grace,", "", "Read by many", "Read by some"]


# -- the partner -----------------------------------------------------------------------------------------------------


def test_users_are_inserted_and_updated(shop: World, jobs: BackgroundJobs) -> None:
    """New ones are inserted, known ones updated; their subscriptions stay as they are."""
    put(shop, User(external_id=1, name="ada", email="old@example.com", email_subscription=False))
    shop.partner.users = [
        {"id": 1, "name": "Ada", "email": "ada@example.com"},
        {"id": 2, "name": "Grace", "email": "grace@example.com"},
    ]
    runs(jobs, "DataSyncJob")
    assert [(row.external_id, row.name, row.email, row.email_subscription) for row in rows(shop, User)] == [
        (1, "Ada", "ada@example.com", False),
        (2, "Grace", "grace@example.com", True),
    ]


def test_a_run_that_fails_is_rolled_back(shop: World, jobs: BackgroundJobs) -> None:
    """The third city does not answer, so the first two are not stored either; later, all of them are."""
    shop.partner.broken.add("Tokyo")
    assert run(jobs, "WeatherDataPollingJob").outcome == "failed"
    assert not rows(shop, WeatherData)

    shop.partner.broken.clear()
    runs(jobs, "WeatherDataPollingJob")
    assert [(row.city, row.temperature) for row in rows(shop, WeatherData)] == [
        ("New York", 8),
        ("London", 6),
        ("Tokyo", 5),
        ("Sydney", 6),
    ]


def test_the_administrator_hears_once_that_a_job_fails(shop: World, jobs: BackgroundJobs) -> None:
    """And again when it fails after it has succeeded."""
    for broken in (True, True, False, True):
        shop.partner.broken = {"London"} if broken else set()
        run(jobs, "WeatherDataPollingJob")
    shop.mailbox.arrived.wait(2)
    jobs.close()  # waits for the reports that are left
    assert shop.mailbox.mails == [(ADMIN, "Job WeatherDataPollingJob failed")] * 2
    assert "503" in shop.mailbox.arrived.seen[0].get_payload()


# -- housekeeping ----------------------------------------------------------------------------------------------------


def test_old_rows_of_the_email_log_are_deleted(shop: World, jobs: BackgroundJobs) -> None:
    """Rows older than the settings file says, and no others."""
    for days in (91, 89):
        put(shop, EmailLog(recipient=ADMIN, subject=f"{days} days", created_at=now() - timedelta(days=days)))
    runs(jobs, "CleanupOldLogsJob")
    assert [row.subject for row in rows(shop, EmailLog)] == ["89 days"]


@pytest.fixture(name="pg_dump")
def _pg_dump(shop: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Has the programs of PostgreSQL found, where they are needed."""
    if shop.engine.dialect.name == "postgresql" and (programs := postgresql_programs()) is not None:
        monkeypatch.setenv("PATH", str(programs), prepend=":")
        if shutil.which("pg_dump") is None:
            pytest.skip("pg_dump is not installed")


@pytest.mark.usefixtures("pg_dump")
def test_a_backup_can_be_opened_again(shop: World, jobs: BackgroundJobs, request: pytest.FixtureRequest) -> None:
    """It has what the database had."""
    put(shop, order(email="kept@example.com"))
    runs(jobs, "DatabaseBackupJob")
    (backup,) = shop.settings.backups.iterdir()
    if backup.suffix == ".db":
        shop.settings.database_url = f"sqlite:///{backup}"
        assert [row.email for row in rows(shop, Order)] == ["kept@example.com"]
        return
    with database(request.getfixturevalue("postgresql_server")) as url:
        where = make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)
        subprocess.run(["pg_restore", "--no-owner", f"--dbname={where}", backup], check=True, timeout=LIMIT)
        with Session(create_engine(url, poolclass=NullPool)) as session:
            assert session.scalars(select(Order.email)).all() == ["kept@example.com"]


@pytest.mark.usefixtures("pg_dump")
def test_the_latest_backups_are_kept(shop: World, jobs: BackgroundJobs) -> None:
    """As many as the settings say."""
    shop.settings.backups.mkdir()
    suffix = ".db" if "sqlite" in shop.settings.database_url else ".dump"
    for day in (1, 2, 3):
        (shop.settings.backups / f"shop-2026010{day}-020000{suffix}").touch()
    runs(jobs, "DatabaseBackupJob", keep=2)
    oldest, newest = sorted(path.name for path in shop.settings.backups.iterdir())
    assert oldest == f"shop-20260103-020000{suffix}"
    assert newest > oldest


@pytest.mark.usefixtures("pg_dump")
def test_a_backup_that_fails_leaves_nothing(shop: World, jobs: BackgroundJobs, tmp_path: Path) -> None:
    """Its on_exception clears away what there is of it."""
    if "sqlite" in shop.settings.database_url:
        (tmp_path / "damaged").write_text("this is no database" * 100, encoding="utf-8")
        shop.settings.database_url = f"sqlite:///{tmp_path / 'damaged'}"
    else:
        shop.settings.database_url += "_that_is_not_there"
    assert run(jobs, "DatabaseBackupJob").outcome == "failed"
    assert not list(shop.settings.backups.iterdir())


# -- the web process -------------------------------------------------------------------------------------------------


async def test_products_come_from_the_cache(shop: World) -> None:
    """The job of the web process fills it at the start; what it holds is shown, whatever the database says since."""
    app = create_app(shop.settings)
    async with (
        app.router.lifespan_context(app),
        AsyncClient(transport=ASGITransport(app), base_url="http://shop") as client,
    ):
        await eventually(lambda: len(app.state.shop.cache) == 3)
        await asyncio.to_thread(change_price, shop, 2)
        await asyncio.to_thread(put, shop, Product(id=99, name="New", price=1))
        assert (await client.get("/products/2")).json() == {"id": 2, "name": "Chair", "price": 12900}
        assert (await client.get("/products/99")).json()["name"] == "New"
        assert (await client.get("/products/5")).status_code == 404
        assert (await client.get("/ready")).json() == {"ok": True, "problems": []}


def change_price(shop: World, product_id: int) -> None:
    """Change the price of a product in the database."""
    with Session(shop.engine) as session, session.begin():
        session.get_one(Product, product_id).price += 1


async def test_the_orders_api_checks_what_it_is_told(shop: World) -> None:
    """What cannot be ordered is refused; a cancelled order cannot be completed."""
    await asyncio.to_thread(put, shop, order(status=OrderStatus.CANCELLED, cancelled_reason="too late"))
    app = create_app(shop.settings)
    async with (
        app.router.lifespan_context(app),
        AsyncClient(transport=ASGITransport(app), base_url="http://shop") as client,
    ):
        placed = (await client.post("/orders", json={"email": "a@example.com", "product_id": 1, "quantity": 3})).json()
        assert placed["total"] == 14700
        assert (await client.post(f"/orders/{placed['id']}/complete")).json()["status"] == "completed"
        assert (await client.get(f"/orders/{placed['id']}")).json() == placed | {"status": "completed"}
        assert placed["created_at"].endswith("Z")  # a time without a zone is none, whatever SQLite stores
        assert (await client.post("/orders", json={"email": "a@example.com", "product_id": 9})).status_code == 404
        assert (await client.post("/orders", json={"email": "nobody", "product_id": 1})).status_code == 422
        assert (await client.post("/orders/1/complete")).status_code == 409
