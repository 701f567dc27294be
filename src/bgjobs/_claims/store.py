"""What a claim store is asked, what it answers, and what it keeps."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any, Literal, NamedTuple, Protocol

from .._errors import ClaimStoreError, masked

#: What is claimed: an occurrence, the run at the start of the replicas, an extra run.
Kind = Literal["occurrence", "start", "extra"]

#: Why a claim is refused.
Reason = Literal["claimed", "passed", "early", "busy", "paused", "recent"]

#: The columns of a row beside its key, whole numbers and texts, and what each holds before anybody has written it.
#: Columns are only ever added. `lost`, `lost_at` and `lost_fence` are the last run that did not end: who made it, when
#: its lease was over, and its fence.
NUMBERS: dict[str, int | None] = {
    **dict.fromkeys(("last_fire", "before", "start_at", "paused", "fence"), 0),
    **dict.fromkeys(("lease_until", "fire", "started_at", "lost_at", "lost_fence", "finished_at")),
}
TEXTS: dict[str, None] = dict.fromkeys(("schedule", "token", "holder", "lost", "outcome", "error"))


class Ask(NamedTuple):
    """One run that wants to begin. Times are whole milliseconds; points in time count from the epoch, in UTC.

    Attributes:
        key: The job: ``<application>/<key>``.
        kind: What is claimed.
        fire: The nominal fire time of an occurrence; 0 for the other kinds.
        token: Unique for each run, never empty. The same token asked again has the same answer.
        done: The tokens of runs of the key that this process knows not to be in progress, separated by spaces: its
            previous one, even if its release is still on its way, and those whose answers never came.
        holder: The process that asks: ``host:pid``.
        schedule: The text of the job's schedule.
        lease: How long the run is protected without a renewal.
        ahead: How far in the store's future a fire time may lie.
        window: How long after one start another counts as the same.
    """

    key: str
    kind: Kind
    fire: int
    token: str
    done: str
    holder: str
    schedule: str
    lease: int
    ahead: int
    window: int


class Answer(NamedTuple):
    """What the store says to an `Ask`.

    Attributes:
        reason: Why the claim is refused; ``None`` where it is granted.
        now: The store's clock.
        fence: Of a grant: greater than that of every earlier grant of the key.
        lost: Of a grant: the holder whose lease ran out before it was released; ``None`` where none did.
        holder: Of a refusal: who has the lease, or had it last; ``None`` where nobody ever had.
        since: Of a refusal: when that run was granted.
        ahead: Of ``early``: how far the fire time lies in the store's future.
    """

    reason: Reason | None
    now: int
    fence: int = 0
    lost: str | None = None
    holder: str | None = None
    since: int | None = None
    ahead: int = 0


class ClaimStore(Protocol):
    """Where the replicas agree. Each call is atomic, goes by the store's own clock, blocks, and keeps no session.

    Each raises `ClaimStoreError` where the store does not answer; a connection that broke is renewed once.
    """

    def claim(self, ask: Ask) -> Answer:
        """Ask for a run."""

    def renew(self, held: Collection[tuple[str, str]], lease: int) -> set[str]:
        """Extend the leases of each ``(key, token)``. Returns the tokens that still have theirs."""

    def release(self, key: str, token: str, fire: int, outcome: str, error: str | None) -> None:
        """End a lease that the token still has; occurrences up to *fire* count as claimed."""

    def pause(self, key: str, paused: bool) -> None:
        """Pause or resume a job in all replicas."""

    def rows(self, prefix: str) -> list[dict[str, Any]]:
        """The rows of the keys that begin with *prefix*, by key: all columns, and the store's clock as ``now``."""

    def close(self) -> None:
        """Close all connections."""


@contextmanager
def answering(url: str) -> Iterator[None]:
    """Turn whatever a driver raises into a `ClaimStoreError` of one line, without what only the owner may know."""
    try:
        yield
    except Exception as exc:  # noqa: BLE001 - drivers raise more than their own errors
        told = (str(exc).splitlines() or [type(exc).__name__])[0]
        raise ClaimStoreError(f"the claim store does not answer: {masked(told, {'url': url})}") from None


def storable(text: str | None) -> str | None:
    """A text that every store can take: of limited length, without what is no UTF-8, and without NUL."""
    return text and text[:1000].replace("\0", "").encode(errors="replace").decode()
