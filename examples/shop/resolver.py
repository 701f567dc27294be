"""The scope of one run: a session, and an instance of the job whose constructor gets what it asks for, by type."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any, get_type_hints

from sqlalchemy.ext.asyncio import AsyncSession, async_sessionmaker

from bgjobs import Resolver

from .config import ShopSettings
from .mail import Mailer


def resolver_of(settings: ShopSettings, sessions: async_sessionmaker[AsyncSession], *shared: object) -> Resolver:
    """Make the resolver of the shop's jobs; a container such as dishka or svcs would take its place.

    Args:
        settings: The settings of the shop.
        sessions: Makes the session of a run.
        shared: What all runs share.
    """

    @asynccontextmanager
    async def resolver(job_type: type[Any]) -> AsyncGenerator[Any]:
        async with sessions() as session:
            parts = [session, Mailer(session, settings), settings, *shared]
            found = {type(part): part for part in parts}
            wanted = get_type_hints(job_type.__init__)
            yield job_type(**{name: found[kind] for name, kind in wanted.items() if name != "return"})
            await session.commit()  # not reached by a run that fails or is cancelled: its session is rolled back

    return resolver
