"""A SQLAlchemy session per run, by hand and from containers: committed where the run succeeds, else rolled back.

What docs/sessions.md says of each container is shown here for sync and async jobs, on a SQLite file.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import dishka
import pytest
import svcs
import wireup
from dependency_injector import containers, providers
from sqlalchemy import Engine, create_engine, select
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, sessionmaker

from bgjobs import Resolver
from bgjobs.testing import arun_job, run_job
from stage import NIGHTLY, cold


class Base(DeclarativeBase):
    """The tables."""


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    note: Mapped[str]


class SyncJob:
    def __init__(self, session: Session) -> None:
        self.session = session

    def action_to_do(self, note: str) -> None:
        self.session.add(Order(note=note))
        self.session.flush()
        if note == "bad":
            raise ValueError(note)


class AsyncJob:
    def __init__(self, session: AsyncSession) -> None:
        self.session = session

    async def action_to_do(self, note: str) -> None:
        self.session.add(Order(note=note))
        await self.session.flush()
        if note == "bad":
            raise ValueError(note)


SyncFactory = Callable[[], Generator[Session]]
AsyncFactory = Callable[[], AsyncGenerator[AsyncSession]]


# -- each container, with a factory of sessions; `begins`: whether the resolver begins the transaction ---------------


@contextmanager
def begun(session: Session, begins: bool) -> Generator[None]:
    """In a transaction, or as it is."""
    if begins:
        with session.begin():
            yield
    else:
        yield


@asynccontextmanager
async def async_begun(session: AsyncSession, begins: bool) -> AsyncGenerator[None]:
    """In a transaction, or as it is."""
    if begins:
        async with session.begin():
            yield
    else:
        yield


def by_hand(factory: SyncFactory, begins: bool) -> Resolver:
    @contextmanager
    def resolver(job_type: type[Any]) -> Generator[Any]:
        with contextmanager(factory)() as session, begun(session, begins):
            yield job_type(session)

    return resolver


def by_hand_async(factory: AsyncFactory, begins: bool) -> Resolver:
    @asynccontextmanager
    async def resolver(job_type: type[Any]) -> AsyncGenerator[Any]:
        async with asynccontextmanager(factory)() as session, async_begun(session, begins):
            yield job_type(session)

    return resolver


def from_dishka(factory: SyncFactory, begins: bool) -> Resolver:
    provider = dishka.Provider(scope=dishka.Scope.REQUEST)
    provider.provide(factory)
    provider.provide(SyncJob)
    container = dishka.make_container(provider)

    @contextmanager
    def resolver(job_type: type[Any]) -> Generator[Any]:
        with container() as scope, begun(scope.get(Session), begins):
            yield scope.get(job_type)

    return resolver


def from_dishka_async(factory: AsyncFactory, begins: bool) -> Resolver:
    provider = dishka.Provider(scope=dishka.Scope.REQUEST)
    provider.provide(factory)
    provider.provide(AsyncJob)
    container = dishka.make_async_container(provider)

    @asynccontextmanager
    async def resolver(job_type: type[Any]) -> AsyncGenerator[Any]:
        async with container() as scope, async_begun(await scope.get(AsyncSession), begins):
            yield await scope.get(job_type)

    return resolver


def from_svcs(factory: SyncFactory, begins: bool) -> Resolver:
    registry = svcs.Registry()
    registry.register_factory(Session, factory)
    registry.register_factory(SyncJob, svcs.autowire(SyncJob))

    @contextmanager
    def resolver(job_type: type[Any]) -> Generator[Any]:
        with svcs.Container(registry) as scope, begun(scope.get(Session), begins):
            yield scope.get(job_type)

    return resolver


def from_svcs_async(factory: AsyncFactory, begins: bool) -> Resolver:
    registry = svcs.Registry()
    registry.register_factory(AsyncSession, factory)
    registry.register_factory(AsyncJob, svcs.aautowire(AsyncJob))

    @asynccontextmanager
    async def resolver(job_type: type[Any]) -> AsyncGenerator[Any]:
        async with (
            svcs.Container(registry) as scope,
            async_begun(await scope.aget(AsyncSession), begins),
        ):
            yield await scope.aget(job_type)

    return resolver


def from_wireup(factory: SyncFactory, begins: bool) -> Resolver:
    injectables = [wireup.injectable(lifetime="scoped")(it) for it in (factory, SyncJob)]
    container = wireup.create_sync_container(injectables=injectables)

    @contextmanager
    def resolver(job_type: type[Any]) -> Generator[Any]:
        with container.enter_scope() as scope, begun(scope.get(Session), begins):
            yield scope.get(job_type)

    return resolver


def from_wireup_async(factory: AsyncFactory, begins: bool) -> Resolver:
    injectables = [wireup.injectable(lifetime="scoped")(it) for it in (factory, AsyncJob)]
    container = wireup.create_async_container(injectables=injectables)

    @asynccontextmanager
    async def resolver(job_type: type[Any]) -> AsyncGenerator[Any]:
        async with (
            container.enter_scope() as scope,
            async_begun(await scope.get(AsyncSession), begins),
        ):
            yield await scope.get(job_type)

    return resolver


def from_dependency_injector(factory: SyncFactory, begins: bool) -> Resolver:
    class Run(containers.DeclarativeContainer):
        session = providers.Resource(factory)
        jobs = providers.Dict({SyncJob: providers.Factory(SyncJob, session=session).provider})

    @contextmanager
    def resolver(job_type: type[Any]) -> Generator[Any]:
        run = Run()
        try:
            with begun(run.session(), begins):
                yield run.jobs()[job_type]()
        finally:
            run.shutdown_resources()

    return resolver


def from_dependency_injector_async(factory: AsyncFactory, begins: bool) -> Resolver:
    class Run(containers.DeclarativeContainer):
        session = providers.Resource(factory)
        jobs = providers.Dict({AsyncJob: providers.Factory(AsyncJob, session=session).provider})

    @asynccontextmanager
    async def resolver(job_type: type[Any]) -> AsyncGenerator[Any]:
        run = Run()
        try:
            async with async_begun(await run.session.async_(), begins):
                yield await run.jobs()[job_type]()
        finally:
            if (closing := run.shutdown_resources()) is not None:
                await closing

    return resolver


SYNC = {
    "by hand": by_hand,
    "dishka": from_dishka,
    "svcs": from_svcs,
    "wireup": from_wireup,
    "dependency-injector": from_dependency_injector,
}
ASYNC = {
    "by hand": by_hand_async,
    "dishka": from_dishka_async,
    "svcs": from_svcs_async,
    "wireup": from_wireup_async,
    "dependency-injector": from_dependency_injector_async,
}


#: These end their scope without the exception: a factory cannot tell that the run failed.
COMMIT = {"dishka", "svcs", "dependency-injector"}


@pytest.fixture(name="engine")
def _engine(tmp_path: Path) -> Generator[Engine]:
    """A SQLite file with the table."""
    engine = create_engine(f"sqlite:///{tmp_path / 'shop.db'}")
    Base.metadata.create_all(engine)
    yield engine
    engine.dispose()


@pytest.fixture(name="async_engine")
async def _async_engine(engine: Engine) -> AsyncGenerator[AsyncEngine]:
    """The same file."""
    async_engine = create_async_engine(f"sqlite+aiosqlite:///{engine.url.database}")
    yield async_engine
    await async_engine.dispose()


def notes(engine: Engine) -> list[str]:
    """What was committed."""
    with Session(engine) as session:
        return list(session.scalars(select(Order.note)))


def run_both(resolver: Resolver) -> None:
    """A run that succeeds, and one that fails."""
    jobs = cold(resolver=resolver)
    for note in ("good", "bad"):
        jobs.add_background_job(SyncJob, cron=NIGHTLY, key=note, kwargs={"note": note})
    assert [run_job(jobs, note).outcome for note in ("good", "bad")] == ["succeeded", "failed"]


async def arun_both(resolver: Resolver) -> None:
    """The same, async."""
    jobs = cold(resolver=resolver)
    for note in ("good", "bad"):
        jobs.add_background_job(AsyncJob, cron=NIGHTLY, key=note, kwargs={"note": note})
    assert [(await arun_job(jobs, note)).outcome for note in ("good", "bad")] == ["succeeded", "failed"]


@pytest.mark.parametrize("container", SYNC)
class TestContainers:
    def test_a_resolver_that_begins_the_transaction_rolls_a_failed_run_back(
        self, container: str, engine: Engine
    ) -> None:
        """The factory opens and closes the session; what the good run wrote is there, and nothing else."""
        new_session = sessionmaker(engine)

        def factory() -> Generator[Session]:
            with new_session() as session:
                yield session

        run_both(SYNC[container](factory, True))
        assert notes(engine) == ["good"]

    async def test_so_does_one_for_async_jobs(self, container: str, engine: Engine, async_engine: AsyncEngine) -> None:
        """The same with an `AsyncSession`."""
        new_session = async_sessionmaker(async_engine)

        async def factory() -> AsyncGenerator[AsyncSession]:
            async with new_session() as session:
                yield session

        await arun_both(ASYNC[container](factory, True))
        assert notes(engine) == ["good"]

    def test_begin_in_the_factory(self, container: str, engine: Engine) -> None:
        """It commits what a failed run wrote, unless the container raises the exception in the factory."""
        new_session = sessionmaker(engine)

        def factory() -> Generator[Session]:
            with new_session.begin() as session:
                yield session

        run_both(SYNC[container](factory, False))
        assert notes(engine) == (["good", "bad"] if container in COMMIT else ["good"])

    async def test_begin_in_the_factory_of_async_jobs(
        self, container: str, engine: Engine, async_engine: AsyncEngine
    ) -> None:
        """The same with an `AsyncSession`."""
        new_session = async_sessionmaker(async_engine)

        async def factory() -> AsyncGenerator[AsyncSession]:
            async with new_session.begin() as session:
                yield session

        await arun_both(ASYNC[container](factory, False))
        assert notes(engine) == (["good", "bad"] if container in COMMIT else ["good"])
