"""The claims of one facade: asked for, kept alive by a heartbeat, given back when their runs have ended.

The heartbeat is a thread: a task would lose its leases with an event loop that is blocked.
"""

from __future__ import annotations

import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from .._errors import ClaimStoreError
from .._runs import log
from .._runs.calls import Calls
from .._runs.run import Run
from .._runs.schedule import LATE, SCHEDULED, STARTUP, RegisteredJob
from .._runs.status import Outcome, Refused
from .._runs.threads import start_thread, waits
from .line import Line
from .store import Answer, Ask, ClaimStore, Kind

#: Milliseconds: how far a fire time may lie in the store's future, for how long a run waits that is earlier still, and
#: within which time the starts of replicas count as one.
AHEAD, LONGEST_WAIT, WINDOW = 5_000, 60_000, 600_000

_KINDS: dict[str, Kind] = {SCHEDULED: "occurrence", LATE: "occurrence", STARTUP: "start"}
_WORDS = {
    Outcome.CLAIMED: "claimed by {0.holder}",
    Outcome.PASSED: "a later one was claimed first, by {0.holder}; the clocks differ by more than the job's period",
    Outcome.BUSY: "still running on {0.holder}",
    Outcome.PAUSED: "the job is paused in all replicas",
    Outcome.EARLY: "this machine's clock is {0.ahead} ms ahead of the claim store's",
    Outcome.RECENT: "made at the start of another replica, {0.holder}",
}


@dataclass(slots=True, eq=False)
class _Held:
    """A lease: of which run, under which key, until when by our monotonic clock, and what that is by the store's."""

    run: Run
    key: str
    until: float
    zero: float


class Keeper:
    """Asks for, keeps and gives back the claims of one facade, from `start` to `close`.

    Args:
        store: Where the replicas agree.
        application: Keeps the keys of applications apart.
        lease: Seconds for which a run is protected without a heartbeat.
        heard: Called with each row, by a thread of the keeper: after `look`, and when the store answers again. Returns
            the fire time of the late run that will be made for it, if any.
    """

    def __init__(
        self, store: ClaimStore, application: str, lease: float, heard: Callable[[dict[str, Any]], datetime | None]
    ) -> None:
        self._store = store
        self._prefix = f"{application}/"
        self._lease = lease
        self._heard = heard
        self._holder = f"{socket.gethostname()}:{os.getpid()}"
        self._ahead = 0.0  # milliseconds by which this machine's clock is ahead of the store's
        self._held: dict[str, _Held] = {}  # by token
        self._done: dict[str, str] = {}  # the tokens of the latest runs that have ended, by key
        self._unheard: dict[str, dict[str, int]] = {}  # tokens that may be granted, and their fire times, by key
        self._told: dict[str, tuple[str, int | None]] = {}  # what the log has said last of each key
        self._woken = threading.Event()  # the heartbeat is
        self._is_closed = False
        self._line = Line(self._changed)
        self._heart: threading.Thread | None = None

    def start(self) -> None:
        """Start the threads, and look at the rows of all jobs; what is claimed before waits for that.

        Raises:
            RuntimeError: No thread can be started; `close` ends those that could.
        """
        self._line.start()
        self._heart = start_thread(self._beat, "bgjobs-heartbeat")
        self.look()

    # -- a run ---------------------------------------------------------------------------------------------------

    async def claim(self, run: Run, calls: Calls) -> Refused | None:
        """Claim a run, for the task or thread that owns it; ``None`` where it may begin."""
        sent, answer = await self._ask(run, calls)
        if answer is not None and answer.reason == "early" and answer.ahead <= LONGEST_WAIT:
            self._is_news(run, Outcome.EARLY, None, log.warning, _WORDS[Outcome.EARLY].format(answer))
            await calls.sleep(run.token, answer.ahead / 1000)
            sent, answer = await self._ask(run, calls)
        if answer is None:
            return self._unclaimed(run)
        if answer.reason is not None:
            return self._refused(run, answer)
        run.fence = answer.fence
        self._told.pop(run.key, None)
        self._unheard.pop(run.key, None)  # none of those has the lease any more
        if run.job.schedule is not None and run.kind in _KINDS:
            run.job.schedule.is_held = False
        if answer.lost:
            log.warning(f"job {run.key!r}: its previous run, on {answer.lost}, was lost: it never ended", key=run.key)
        assert run.lease is not None
        zero = answer.now - time.monotonic() * 1000
        self._held[run.lease] = _Held(run, self._prefix + run.key, sent + self._lease, zero)
        return None

    async def _ask(self, run: Run, calls: Calls) -> tuple[float, Answer | None]:
        """The store's answer, and when the question was sent; no answer where it does not come in time."""
        kind = _KINDS.get(run.kind, "extra")
        fire = _milliseconds(run.scheduled_at) if kind == "occurrence" else 0
        unheard = self._unheard.get(run.key, {})  # another run of the key may change it meanwhile
        run.lease = next((token for token, due in [*unheard.items()] if fire and due == fire), secrets.token_hex(8))
        unheard.pop(run.lease, None)
        done = " ".join([self._done.get(run.key, ""), *unheard])
        schedule = run.job.schedule
        text, lease = schedule.text if schedule else "", round(self._lease * 1000)
        key = self._prefix + run.key
        ask = Ask(key, kind, fire, run.lease, done, self._holder, text, lease, AHEAD, WINDOW)
        asked = self._line.submit(self._claim, ask)
        try:
            return await calls.wait(asked, waits.claim)
        except BaseException as error:
            self._unheard.setdefault(run.key, {})[run.lease] = fire
            asked.add_done_callback(self._came_late)
            if isinstance(error, TimeoutError):
                self._line.silent()
            elif not isinstance(error, Exception):  # a cancellation
                raise
            return 0.0, None

    def _claim(self, ask: Ask) -> tuple[float, Answer]:
        sent, wall = time.monotonic(), time.time() * 1000
        answer = self._store.claim(ask)
        self._ahead = wall - answer.now
        return sent, answer

    def _came_late(self, asked: Future[tuple[float, Answer]]) -> None:
        """Nobody waits for this answer any more."""
        if not asked.cancelled() and asked.exception() is None and asked.result()[1].reason is None:
            self.look()

    def _refused(self, run: Run, answer: Answer) -> Refused:
        reason, schedule = Outcome(str(answer.reason)), run.job.schedule
        text, is_told = _WORDS[reason].format(answer), True
        if reason == Outcome.PAUSED:
            self._is_news(run, reason, None, log.info, text)
            assert schedule is not None  # an extra run is never refused for that
            schedule.is_held = True
        elif reason in (Outcome.BUSY, Outcome.EARLY):
            is_told = not self._is_news(run, reason, answer.since if reason == Outcome.BUSY else None)
        else:
            is_told = reason == Outcome.CLAIMED
            if is_told and schedule is not None and schedule.is_held:
                self.look()  # it may have been resumed
        return Refused(reason, text, is_told)

    def _unclaimed(self, run: Run) -> Refused | None:
        run.lease = None
        down = self._line.down or "the claim store does not answer"
        if run.job.options.on_claim_error == "skip":
            return Refused(Outcome.UNCLAIMED, down)
        self._is_news(run, Outcome.UNCLAIMED, None, log.warning, "runs without a claim, in each replica")
        return None

    def _is_news(
        self, run: Run, reason: str, since: int | None, tell: Callable[..., object] | None = None, text: str = ""
    ) -> bool:
        """Whether the log has not said this of the job yet; it is told, then."""
        is_news = self._told.get(run.key) != (reason, since)
        self._told[run.key] = (reason, since)
        if is_news and tell is not None:
            tell(f"job {run.key!r}: {text}", key=run.key)
        return is_news

    def release(self, run: Run, outcome: str, error: str | None) -> None:
        """A run that asked for a claim has ended, or is dropped. Waits for nothing."""
        if run.lease is None or run.fence is None:
            return
        held, ticked = self._held.pop(run.lease, None), run.job.schedule and run.job.schedule.ticked_at
        fire = _milliseconds(ticked) if ticked else 0
        if held is None or fire > held.zero + time.monotonic() * 1000:  # our clock may be ahead: that is not due yet
            fire = 0
        self._give_back(run.key, run.lease, fire, outcome, error)

    def _give_back(self, key: str, token: str, fire: int, outcome: str, error: str | None) -> None:
        self._done[key] = token
        self._line.insist(self._store.release, self._prefix + key, token, fire, outcome, error)

    # -- all replicas --------------------------------------------------------------------------------------------

    def pause(self, job: RegisteredJob, *, paused: bool) -> None:
        """Pause or resume a job in all replicas.

        Raises:
            ClaimStoreError: The store does not answer.
        """
        self._line.answer(self._line.submit(self._store.pause, self._prefix + job.key, paused), waits.claim)
        if job.schedule is not None:
            job.schedule.is_held = paused
        log.info(f"job {job.key!r} is {'paused' if paused else 'resumed'} in all replicas", job.key)

    def look(self) -> None:
        """Have a thread read all rows, and tell of them."""

        def found(rows: Future[list[dict[str, Any]]]) -> None:
            for row in [] if rows.exception() else rows.result():
                self._looked({**row, "key": row["key"].removeprefix(self._prefix)})

        self._line.submit(self._store.rows, self._prefix).add_done_callback(found)

    def _looked(self, row: dict[str, Any]) -> None:
        """Tell of a row. A grant that nobody has heard of is for a late run to take up; else it is given back."""
        key, token, late = row["key"], row["token"], None
        fire = self._unheard.get(key, {}).get(token)
        try:
            late = self._heard({**row, "last_fire": fire - 1} if fire else row)
        except Exception as error:  # noqa: BLE001 - whatever a job store or a trigger raises
            log.failure(f"what all replicas have missed of job {key!r} cannot be made up for:", error)
        if fire is not None and (late is None or _milliseconds(late) != fire):
            self._give_back(key, token, 0, Outcome.UNCLAIMED, None)

    def _changed(self, is_down: bool) -> None:
        if is_down:
            self._woken.set()
        else:
            self.look()

    def problems(self) -> list[str]:
        """What is wrong, from memory."""
        ahead = f"this machine's clock is {self._ahead / 1000:.1f} s ahead of the claim store's"
        return ([self._line.down] if self._line.down else []) + ([ahead] if self._ahead > AHEAD else [])

    def close(self) -> None:
        """Give the last releases their time, and everything back."""
        self._is_closed = True
        self._woken.set()
        self._line.close()
        if self._heart is not None:
            self._heart.join(waits.claim)
        self._store.close()

    # -- the heartbeat -------------------------------------------------------------------------------------------

    def _beat(self) -> None:
        while not self._is_closed:
            is_early = self._woken.wait(max(0.05, min(1.0 if self._line.down else self._lease / 3, self._left())))
            self._woken.clear()
            try:
                if (self._held or self._line.down) and not self._is_closed:
                    self._renew(dict(self._held))
                if not is_early:  # a store may answer and yet refuse these: not each time it has woken this thread
                    self._line.again()
            except Exception as error:  # noqa: BLE001  # pragma: no cover - a fault of ours: the heartbeat goes on
                log.failure("the heartbeat of the claims raised", error)

    def _left(self) -> float:
        """The seconds until the first lease is nearly over that its run cannot do without."""
        needed = (held.until for held in list(self._held.values()) if held.run.job.options.on_claim_error == "skip")
        return min(needed, default=1e9) - self._lease / 10 - time.monotonic()

    def _renew(self, held: dict[str, _Held]) -> None:
        sent, kept = time.monotonic(), None
        leases = [(lease.key, token) for token, lease in held.items()]
        with suppress(ClaimStoreError):
            if held:
                asked = self._line.submit(self._store.renew, leases, round(self._lease * 1000))
                kept = self._line.answer(asked, min(waits.claim, self._left()))
            else:
                self._line.answer(self._line.submit(self._store.rows, self._prefix), waits.claim)
        for token, lease in held.items():
            if kept is not None and token in kept:
                lease.until = sent + self._lease
            elif kept is not None or (
                lease.run.job.options.on_claim_error == "skip" and time.monotonic() >= lease.until - self._lease / 10
            ):
                self._lose(token, lease.run)

    def _lose(self, token: str, run: Run) -> None:
        if self._held.pop(token, None) is not None:  # pragma: no branch - else it has ended in this moment
            log.warning(f"job {run.key!r} has lost its lease and is cancelled (run {run.run_id})", run)
            run.cancel()


def _milliseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)
