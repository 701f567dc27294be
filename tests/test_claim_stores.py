"""Claim stores: one table of cases, the same answers from PostgreSQL, Redis and SQLite, and what each has traps for."""

from __future__ import annotations

import secrets
import subprocess
import sys
import threading
import traceback
from collections.abc import Callable, Generator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from sqlalchemy import Engine, create_engine, event, make_url, text

from bgjobs import ClaimStoreError, ConfigurationError
from bgjobs._claims import Answer, Ask, ClaimStore, open_store  # users have `[claims] url` alone
from servers import Proxy, pgbouncer
from stage import LIMIT, until

SECOND, MINUTE, HOUR = 1000, 60_000, 3_600_000


@pytest.fixture(name="url", params=["postgresql", "redis", "sqlite"])
def _url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Each kind of store in turn, without a row of the test's application."""
    return f"sqlite:///{tmp_path}/claims.db" if request.param == "sqlite" else request.getfixturevalue(request.param)


class Desk:
    """Asks one store about one job, at whole seconds before and after the store's time of the first question."""

    def __init__(self, url: str) -> None:
        self.store: ClaimStore = open_store(url)
        self.application = secrets.token_hex(4)
        self.key = f"{self.application}/job"
        self.zero = self.store.claim(self.asked(kind="extra", key=f"{self.application}-clock")).now

    def asked(self, token: str = "a", at: int = 0, kind: Any = "occurrence", **more: Any) -> Ask:
        """What a replica asks: it is called after its token."""
        fire = self.zero + at * SECOND if kind == "occurrence" else 0
        given: dict[str, Any] = {"key": getattr(self, "key", ""), "done": "", "schedule": "0 * * * * *"}
        given |= {"lease": MINUTE, "ahead": 5 * SECOND, "window": 10 * MINUTE}
        return Ask(**{"kind": kind, "fire": fire, "token": token, "holder": f"host:{token}", **given, **more})

    def answer(self, *args: Any, **more: Any) -> Answer:
        return self.store.claim(self.asked(*args, **more))

    def row(self) -> dict[str, Any]:
        """The row of the job."""
        (row,) = self.store.rows(self.key)
        return row


@contextmanager
def opened(url: str) -> Generator[Desk]:
    desk = Desk(url)
    with closing(desk.store):
        yield desk


@pytest.fixture(name="desk")
def _desk(url: str) -> Generator[Desk]:
    with opened(url) as desk:
        yield desk


# -- the table: what is done, and what comes of it -------------------------------------------------------------------

Step = Callable[[Desk], str]


def ask(*args: Any, **more: Any) -> Step:
    """A claim; its answer in words."""

    def step(desk: Desk) -> str:
        question = desk.asked(*args, **more)
        answer = desk.store.claim(question)
        assert abs(answer.now - desk.zero) < MINUTE
        assert answer.ahead == (question.fire - answer.now if answer.reason == "early" else 0)
        if answer.reason is None:
            return f"granted {answer.fence}" + (f", lost by {answer.lost}" if answer.lost else "")
        assert answer.fence == 0
        assert (answer.since is None) == (answer.holder is None)
        assert answer.since is None or desk.zero <= answer.since <= answer.now
        return answer.reason + (f" by {answer.holder}" if answer.holder else "")

    return step


def start(token: str, **more: Any) -> Step:
    return ask(token, kind="start", **more)


def extra(token: str, **more: Any) -> Step:
    return ask(token, kind="extra", **more)


def release(token: str, at: int = -HOUR) -> Step:
    def step(desk: Desk) -> str:
        desk.store.release(desk.key, token, desk.zero + at * SECOND, "succeeded", None)
        row = desk.row()
        return "free" if row["token"] is None else f"held by {row['token']}"

    return step


def renew(*tokens: str, lease: int = MINUTE) -> Step:
    def step(desk: Desk) -> str:
        return ", ".join(sorted(desk.store.renew([(desk.key, token) for token in tokens], lease)))

    return step


def pause(paused: bool = True) -> Step:
    def step(desk: Desk) -> str:
        desk.store.pause(desk.key, paused)
        return str(desk.row()["paused"])

    return step


CASES: dict[str, list[tuple[Step, str]]] = {
    "the first to ask is granted": [(ask("a"), "granted 1")],
    "the same token again has the same answer": [(ask("a"), "granted 1"), (ask("a"), "granted 1")],
    "even after its lease": [(ask("a", lease=0), "granted 1"), (ask("a"), "granted 1")],
    "and whatever it is for": [(extra("a", lease=0), "granted 1"), (extra("a"), "granted 1")],
    "another token is refused": [(ask("a"), "granted 1"), (ask("b"), "claimed by host:a")],
    "an occurrence is claimed once, however long ago": [
        (ask("a", -3), "granted 1"),
        (release("a"), "free"),
        (ask("b", -2), "granted 2"),
        (release("b"), "free"),
        (ask("c", -3), "claimed by host:b"),
        (ask("c", -2), "claimed by host:b"),
    ],
    "an occurrence that a later one overtook has passed": [
        (ask("a", -3), "granted 1"),
        (release("a"), "free"),
        (ask("b", -1), "granted 2"),
        (ask("c", -2), "passed by host:b"),
    ],
    "a lease keeps the next occurrence from running": [(ask("a", -1), "granted 1"), (ask("b"), "busy by host:a")],
    "and consumes it": [
        (ask("a", -1), "granted 1"),
        (ask("b"), "busy by host:a"),
        (release("a"), "free"),
        (ask("c"), "claimed by host:a"),
        (ask("c", 1), "granted 2"),
    ],
    "a released lease is free, and not lost": [
        (ask("a", -1), "granted 1"),
        (release("a"), "free"),
        (ask("b"), "granted 2"),
    ],
    "a lease whose run is done is free before its release": [
        (ask("a", -1), "granted 1"),
        (ask("b", done="a"), "granted 2"),
    ],
    "whichever of several it is": [
        (ask("a", -1), "granted 1"),
        (ask("b", done="x a y"), "granted 2"),
        (extra("c", done="b x"), "granted 3"),
    ],
    "another's is not": [(ask("a", -1), "granted 1"), (ask("b", done="x"), "busy by host:a")],
    "a stale release ends nothing": [
        (ask("a", -1), "granted 1"),
        (ask("b", done="a"), "granted 2"),
        (release("a", at=9), "held by b"),
        (release("b"), "free"),
        (ask("c", 1), "granted 3"),
    ],
    "a stale renewal keeps nothing": [
        (ask("a", -1), "granted 1"),
        (ask("b", done="a"), "granted 2"),
        (renew("a"), ""),
        (renew("a", "b"), "b"),
        (renew(), ""),
    ],
    "a renewal extends the lease": [
        (ask("a", -1, lease=0), "granted 1"),
        (renew("a"), "a"),
        (ask("b"), "busy by host:a"),
        (renew("a", lease=0), "a"),
        (ask("c", 1), "granted 2, lost by host:a"),
    ],
    "a release consumes up to a later occurrence": [
        (ask("a", -3), "granted 1"),
        (release("a", at=-1), "free"),
        (ask("b", -3), "claimed by host:a"),
        (ask("b", -2), "passed by host:a"),
        (ask("b", -1), "claimed by host:a"),
        (ask("b"), "granted 2"),
    ],
    "an occurrence an hour ahead is early, and not consumed": [
        (ask("a", 3600), "early"),
        (ask("a"), "granted 1"),
        (ask("b", 3600), "early by host:a"),
    ],
    "a little ahead is tolerated": [(ask("a", 4), "granted 1")],
    "a lease that ran out is taken over": [
        (ask("a", -1, lease=0), "granted 1"),
        (ask("b"), "granted 2, lost by host:a"),
        (ask("b"), "granted 2, lost by host:a"),
        (release("b"), "free"),
        (ask("c", 1), "granted 3"),
        (ask("c", 1), "granted 3"),
    ],
    "so is one after another": [
        (ask("a", -2, lease=0), "granted 1"),
        (ask("b", -1, lease=0), "granted 2, lost by host:a"),
        (ask("c"), "granted 3, lost by host:b"),
    ],
    "not one whose run is done": [(ask("a", -1, lease=0), "granted 1"), (ask("b", done="a"), "granted 2")],
    "a start is made once in its window": [
        (start("a"), "granted 1"),
        (start("a"), "granted 1"),
        (start("b"), "recent by host:a"),
        (release("a"), "free"),
        (start("c"), "recent by host:a"),
        (start("d", window=0), "granted 2"),
        (start("e", window=0), "busy by host:d"),
    ],
    "a start of a busy job is consumed": [
        (ask("a"), "granted 1"),
        (start("b"), "busy by host:a"),
        (release("a"), "free"),
        (start("c"), "recent by host:a"),
    ],
    "a start is no occurrence": [(start("a"), "granted 1"), (release("a"), "free"), (ask("b"), "granted 2")],
    "a paused job neither runs nor starts; its occurrences are consumed": [
        (pause(), "1"),
        (ask("a"), "paused"),
        (start("b"), "paused"),
        (pause(False), "0"),
        (ask("c"), "claimed"),
        (start("d"), "recent"),
        (ask("e", 1), "granted 1"),
    ],
    "an extra run is made of a paused job": [
        (ask("a"), "granted 1"),
        (release("a"), "free"),
        (pause(), "1"),
        (extra("b"), "granted 2"),
    ],
    "an extra run takes the lease, and no occurrence": [
        (extra("a"), "granted 1"),
        (extra("b"), "busy by host:a"),
        (release("a"), "free"),
        (ask("c"), "granted 2"),
        (extra("d"), "busy by host:c"),
        (extra("d", done="c"), "granted 3"),
    ],
    "reasons have an order": [
        (ask("a"), "granted 1"),
        (pause(), "1"),
        (ask("b"), "claimed by host:a"),
        (ask("b", 3600), "early by host:a"),
        (ask("b", 1), "busy by host:a"),
        (start("b"), "busy by host:a"),
        (start("c"), "recent by host:a"),
        (release("a"), "free"),
        (start("d"), "recent by host:a"),
        (ask("d", 2), "paused by host:a"),
        (start("e", window=0), "paused by host:a"),
    ],
}


@pytest.mark.parametrize("case", CASES)
def test_every_store_answers_alike(desk: Desk, case: str) -> None:
    """Each case of the table, in each store."""
    assert [step(desk) for step, _ in CASES[case]] == [expected for _, expected in CASES[case]]


def test_another_process_finds_what_one_has_left(url: str) -> None:
    """The rows outlive the store that wrote them."""
    with opened(url) as desk:
        question = desk.asked("a")
        desk.store.claim(question)
    with closing(open_store(url)) as store:
        assert store.claim(question._replace(token="b")).reason == "claimed"


# -- rows ------------------------------------------------------------------------------------------------------------

NUMBERS = ("last_fire", "before", "start_at", "paused", "fence")
UNKNOWN = ("lease_until", "fire", "started_at", "finished_at", "lost_at", "lost_fence")
TEXTS = ("schedule", "token", "holder", "lost", "outcome", "error")
UNWRITTEN = dict.fromkeys(NUMBERS, 0) | dict.fromkeys(UNKNOWN + TEXTS)


def test_a_row_has_every_column_from_the_beginning(desk: Desk) -> None:
    """A job that was only paused, or only early, has a whole row, too."""
    desk.store.pause(desk.key, True)
    desk.answer(at=3600, key=f"{desk.key}-early")
    paused, early = desk.store.rows(desk.key)
    assert paused == {**UNWRITTEN, "key": desk.key, "paused": 1, "now": paused["now"]}
    assert early == {**UNWRITTEN, "key": f"{desk.key}-early", "now": early["now"]}
    assert early["now"] >= desk.zero


def test_a_row_tells_who_runs_and_how_it_ended(desk: Desk) -> None:
    """The schedule, the run in progress, the lost one before it, and the last end."""
    lost = desk.answer("a", -2, lease=0)
    began = desk.answer("b", -1)
    expected = {**UNWRITTEN, "key": desk.key, "schedule": "0 * * * * *", "fence": 2}
    expected |= {"lost": "host:a", "lost_at": lost.now, "lost_fence": 1}
    expected |= {"last_fire": desk.zero - 1000, "before": desk.zero - 2000, "fire": desk.zero - 1000}
    expected |= {"token": "b", "holder": "host:b", "started_at": began.now, "lease_until": began.now + MINUTE}
    row = desk.row()
    assert row == {**expected, "now": row["now"]}
    desk.store.release(desk.key, "b", 0, "failed", "ValueError: no")
    row = desk.row()
    expected |= {"token": None, "lease_until": None, "outcome": "failed", "error": "ValueError: no"}
    assert row == {**expected, "finished_at": row["finished_at"], "now": row["now"]}
    assert began.now <= row["finished_at"] <= row["now"]


def test_the_last_lost_run_is_kept(desk: Desk) -> None:
    """Over any number of runs that end, until another one is lost; it is told to who takes over, and to nobody else."""
    lost = desk.answer("a", -4, lease=0)
    for at, token in (-3, "b"), (-2, "c"):
        assert desk.answer(token, at).lost == ("host:a" if token == "b" else None)
        desk.store.release(desk.key, token, 0, "succeeded", None)
        row = desk.row()
        assert (row["lost"], row["lost_at"]) == ("host:a", lost.now)
    again = desk.answer("d", -1, lease=0)
    assert (desk.answer("e").lost, desk.row()["lost"]) == ("host:d", "host:d")
    assert desk.row()["lost_at"] == again.now


def test_a_refused_start_extends_the_window(desk: Desk) -> None:
    """A rolling deploy that takes longer than the window counts as one start."""
    first = desk.answer("a", kind="start")
    desk.store.release(desk.key, "a", 0, "succeeded", None)
    while (refused := desk.answer("b", kind="start")).now == first.now:
        pass  # until the store's clock has gone on
    assert refused.reason == "recent"
    assert desk.row()["start_at"] >= refused.now


def test_a_release_without_an_error_clears_the_last_one(desk: Desk) -> None:
    """The error is that of the last run."""
    for token, error in ("a", "ValueError: no"), ("b", None):
        desk.answer(token, kind="extra")
        desk.store.release(desk.key, token, 0, "ended", error)
    assert desk.row()["error"] is None


def test_rows_are_those_of_one_application(desk: Desk) -> None:
    """No character of a prefix stands for others, and case counts."""
    prefix = f"{desk.application}_*?[a]\\%"
    mine = [f"{prefix}/{name}" for name in ("B", "a", "b")]
    others = [mine[0].replace(*change) for change in (("_", "x"), ("*", "xx"), ("?", "x"), ("[a]", "a"), ("%", "xx"))]
    for key in [*reversed(mine), *others, f"{prefix.upper()}/B"]:
        desk.store.pause(key, True)
    assert [row["key"] for row in desk.store.rows(f"{prefix}/")] == mine


def test_any_error_text_is_stored(desk: Desk) -> None:
    """An exception may say what a database cannot store; the lease ends all the same."""
    desk.answer("a")
    desk.store.release(desk.key, "a", 0, "failed", "NUL \0, half a character \ud800, " + "much more" * 1000)
    row = desk.row()
    assert row["token"] is None
    assert row["error"].startswith("NUL , half a character ?, much more")
    assert len(row["error"]) < 1001


# -- what it costs --------------------------------------------------------------------------------------------------

COSTS: dict[str, tuple[list[Step], Step, int]] = {
    "a grant": ([], ask("b", 1), 1),
    "a start": ([], start("b", window=0), 1),
    "an extra run": ([], extra("b"), 1),
    "a run that takes over": ([extra("a", lease=0)], ask("b", 1), 1),
    "claimed": ([], ask("b", -1), 2),
    "passed": ([ask("a", -9), release("a"), ask("a", -7)], ask("b", -8), 2),
    "early": ([], ask("b", 3600), 2),
    "busy": ([extra("a")], ask("b", 1), 1),
    "busy at the start": ([extra("a")], start("b", window=0), 1),
    "busy, for an extra run": ([extra("a")], extra("b"), 1),
    "paused": ([pause()], ask("b", 1), 1),
    "recent": ([], start("b"), 2),
}


@pytest.mark.parametrize("case", COSTS)
@pytest.mark.parametrize("database", ["postgresql", "sqlite"])
def test_a_claim_costs_one_statement_or_two(
    request: pytest.FixtureRequest, tmp_path: Path, database: str, case: str
) -> None:
    """One for the winner and where the run before takes too long, at most two for a loser."""
    before, step, number = COSTS[case]
    url = request.getfixturevalue("postgresql") if database == "postgresql" else f"sqlite:///{tmp_path}/claims.db"
    statements: list[str] = []

    def execute(*given: Any) -> None:
        statements.append(given[2])

    with opened(url) as desk:
        for past in [] if case == "passed" else [start("a"), release("a", at=-1)]:
            past(desk)
        for given in before:
            given(desk)
        event.listen(Engine, "before_cursor_execute", execute)
        try:
            answer = step(desk)
        finally:
            event.remove(Engine, "before_cursor_execute", execute)
    assert len(statements) == number, answer
    assert answer.startswith(case.partition(",")[0].partition(" at ")[0]) or "granted" in answer


# -- at the same time ------------------------------------------------------------------------------------------------


def contend(desk: Desk) -> list[tuple[int, int]]:
    """Eight threads ask for fifty occurrences each. Returns the fire time and the fence of each grant, by fence."""
    grants: list[tuple[int, int]] = []
    errors: list[BaseException] = []
    together = threading.Barrier(8)

    def replica(number: int) -> None:
        try:
            together.wait(LIMIT)
            for at in range(-50, 0):
                token = f"{number}.{at}"
                if (answer := desk.answer(token, at)).reason is None:
                    grants.append((at, answer.fence))
                    desk.store.release(desk.key, token, 0, "succeeded", None)
        except BaseException as exc:  # noqa: BLE001 - for the test's own thread
            errors.append(exc)

    threads = [threading.Thread(target=replica, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    return sorted(grants, key=lambda grant: grant[1])


def test_no_occurrence_is_granted_twice(desk: Desk) -> None:
    """The fences count the grants, which rise as the fire times do."""
    grants = contend(desk)
    assert [fence for _, fence in grants] == [*range(1, len(grants) + 1)]
    assert [at for at, _ in grants] == sorted({at for at, _ in grants})
    assert desk.row()["last_fire"] == desk.zero - SECOND


def after_waiting(url: str, changes: str, call: Callable[[], Answer]) -> Answer:
    """What a call returns that waits for these changes, which are committed as soon as it does."""
    engine, answers = create_engine(url), list[Answer]()
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    with engine.connect() as changing, engine.connect() as onlooker:
        onlooker.execution_options(isolation_level="AUTOCOMMIT")  # in a transaction, statistics stay the same
        changing.execute(text(changes))
        thread = threading.Thread(target=lambda: answers.append(call()))
        thread.start()
        until(lambda: onlooker.execute(text(waiting)).scalar_one() == 1)
        changing.commit()
        thread.join()
    engine.dispose()
    (answer,) = answers
    return answer


def execute(url: str, statement: str) -> None:
    """Run one statement in PostgreSQL."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(statement))
    engine.dispose()


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
def test_a_strict_database_refuses_nobody(postgresql: str, level: str) -> None:
    """Where transactions fail by default that have waited for another one, a claim asks again."""
    execute(postgresql, f"ALTER DATABASE {make_url(postgresql).database} SET default_transaction_isolation = '{level}'")
    with opened(postgresql) as desk:
        desk.answer("a", -1)
        changes = "UPDATE bgjobs_claims SET outcome = 'changed'"
        assert after_waiting(postgresql, changes, lambda: desk.answer("b", done="a")).fence == 2
        grants = contend(desk)
        assert [at for at, _ in grants] == sorted({at for at, _ in grants})


REPLICA = """
import sys
from bgjobs._claims import Ask, open_store
url, key, number = sys.argv[1:]
store = open_store(url)
print("ready", flush=True)
sys.stdin.readline()
print(store.claim(Ask(key, "start", 0, number, "", number, "", 60_000, 0, 600_000)).reason)
"""


def test_eight_processes_begin_on_an_empty_database(url: str) -> None:
    """One of them makes the table, one is granted, none fails."""
    command = [sys.executable, "-c", REPLICA, url, f"{secrets.token_hex(4)}/job"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    replicas = [subprocess.Popen([*command, str(number)], **pipes) for number in range(8)]
    for replica in replicas:
        assert replica.stdout is not None
        assert replica.stdout.readline() == "ready\n"
    for replica in replicas:
        assert replica.stdin is not None
        replica.stdin.write("go\n")
        replica.stdin.flush()
    assert sorted(replica.communicate(timeout=LIMIT)[0] for replica in replicas) == ["None\n"] + ["recent\n"] * 7


def test_two_make_the_table_at_the_same_time(postgresql: str) -> None:
    """PostgreSQL refuses the second one in spite of IF NOT EXISTS: it takes the table of the first one."""
    with opened(postgresql) as desk:
        expected = desk.answer("a")
    execute(postgresql, "ALTER TABLE bgjobs_claims RENAME TO elsewhere")
    with closing(open_store(postgresql)) as store:
        changes = "ALTER TABLE elsewhere RENAME TO bgjobs_claims"  # which nobody else sees yet
        answer = after_waiting(postgresql, changes, lambda: store.claim(desk.asked("a")))
    assert answer.fence == expected.fence


# -- connections -----------------------------------------------------------------------------------------------------


@pytest.fixture(name="proxy", params=["postgresql", "redis"])
def _proxy(request: pytest.FixtureRequest) -> Generator[Proxy]:
    """Between the store and its server."""
    with closing(Proxy(request.getfixturevalue(request.param))) as proxy:
        yield proxy


def test_a_claim_is_repeated_when_its_connection_breaks(proxy: Proxy) -> None:
    """The store has granted it, and the answer was lost on its way: it is granted once, and told."""
    with opened(proxy.url) as desk:
        before = proxy.connections
        proxy.lose_next_answer()
        assert desk.answer("a").fence == 1
        assert proxy.connections == before + 1
        assert desk.row()["token"] == "a"


def test_an_old_connection_does_not_fail_the_next_call(postgresql: str) -> None:
    """A restart of the database ends every connection in the pool: all are renewed at the first call."""
    with opened(postgresql) as desk:
        contend(desk)  # fills the pool
        ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database()"
        execute(postgresql, f"{ended} AND pid <> pg_backend_pid()")
        assert [desk.answer(str(at), at, done=str(at - 1)).reason for at in (1, 2, 3)] == [None] * 3


def test_pgbouncer_may_change_connections_between_transactions(postgresql: str) -> None:
    """Nothing is left in a session for the next claim, prepared statements included."""
    with pgbouncer(postgresql) as url, opened(url) as desk:
        grants = contend(desk)
        assert [at for at, _ in grants] == sorted({at for at, _ in grants})


def test_a_table_that_was_dropped_is_made_again(postgresql: str) -> None:
    """The first call fails, the next one makes it."""
    with opened(postgresql) as desk:
        desk.answer("a")
        execute(postgresql, "DROP TABLE bgjobs_claims")
        with pytest.raises(ClaimStoreError, match="bgjobs_claims"):
            desk.answer("a")
        assert desk.answer("a").fence == 1


def test_scripts_that_redis_has_forgotten_are_sent_again(redis: str) -> None:
    """A restart or a failover forgets them."""
    with opened(redis) as desk, Redis.from_url(redis) as client:
        desk.answer("a")
        client.script_flush()
        assert desk.answer("a").fence == 1


def test_a_table_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    """The error of the database says why."""
    path = tmp_path / "claims.db"
    path.touch()
    with (
        closing(open_store(f"sqlite:///file:{path}?mode=ro&uri=true")) as store,
        pytest.raises(ClaimStoreError, match="readonly"),
    ):
        store.pause("shop/job", True)


def test_a_store_connects_at_its_first_use(tmp_path: Path) -> None:
    """Opening it costs nothing and cannot fail, so that it may happen before a fork."""
    with closing(Proxy("redis://127.0.0.1:1")) as proxy:
        for scheme in "postgresql", "redis", "rediss":
            open_store(f"{scheme}{proxy.url.removeprefix('redis')}").close()
        open_store(f"sqlite:///{tmp_path}/claims.db").close()
        assert proxy.connections == 0
    assert list(tmp_path.iterdir()) == []


# -- URLs, and what is told of them ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hunter2",
        "postgres://shop:hunter2@db/shop",
        "postgresql+asyncpg://shop:hunter2@db/shop",
        "mysql://shop:hunter2@db/shop",
        "sqlite://",
        "sqlite:///",
        "sqlite:///:memory:",
        "sqlite:///file:hunter2?mode=memory&uri=true",
        "sqlite+aiosqlite:///hunter2.db",
        "redis:hunter2",
    ],
)
def test_other_urls_are_refused(url: str) -> None:
    """The error names what can be given, and nothing of what was."""
    with pytest.raises(ConfigurationError, match="give a URL that begins with postgresql://, redis:// or") as caught:
        open_store(url)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    assert caught.value.field == "claims.url"


@pytest.mark.parametrize(
    "url", ["postgresql://shop:@:hunter2@db/shop", "redis://shop:p@db:hunter2/0", "redis://[hunter2"]
)
def test_a_malformed_url_is_not_shown(url: str) -> None:
    """A password with special characters is where the mistake is most often, and the error says how to mend it."""
    with pytest.raises(ConfigurationError, match=r"malformed .*%40 for @") as caught:
        open_store(url)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    ("url", "library", "extra"),
    [
        ("postgresql://db/shop", "psycopg", "postgresql"),
        ("postgresql+psycopg://db/shop", "sqlalchemy", "postgresql"),
        ("sqlite:///claims.db", "sqlalchemy", "sqlalchemy"),
        ("redis://db", "redis", "redis"),
        ("rediss://db", "redis", "redis"),
    ],
)
def test_a_missing_library_is_named_with_its_extra(
    monkeypatch: pytest.MonkeyPatch, url: str, library: str, extra: str
) -> None:
    """What to install, in the words of pip."""
    for module in "bgjobs._claims.sql", "bgjobs._claims.redis":
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setitem(sys.modules, library, None)  # not to be found
    with pytest.raises(ConfigurationError, match=rf"needs {library}, .*: pip install bgjobs\[{extra}\]$"):
        open_store(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://shop:hunter2@127.0.0.1:1/shop",
        "postgresql://127.0.0.1:1/shop?user=shop&password=hunter2",
        "postgresql://shop:p@hunter2@127.0.0.1:1/shop",
        "postgresql://shop:hunter2@127.0.0.1/shop?nonsense=1",
        "redis://:hunter2@127.0.0.1:1/0",
        "redis://127.0.0.1:1/0?password=hunter2",
        "redis://:hunter2@127.0.0.1:1/0?nonsense=1",
        "rediss://shop:hunter2@127.0.0.1:1/0",
        "sqlite:////nowhere/claims.db",
    ],
)
def test_no_error_shows_a_secret(url: str) -> None:
    """Whatever the driver says, and whatever is asked."""
    with closing(open_store(url)) as store:
        calls: list[Callable[[], object]] = [
            lambda: store.claim(Ask("k", "start", 0, "t", "", "h", "s", 1, 1, 1)),
            lambda: store.renew([("k", "t")], 1),
            lambda: store.release("k", "t", 0, "o", None),
            lambda: store.pause("k", True),
            lambda: store.rows("k"),
        ]
        for call in calls:
            with pytest.raises(ClaimStoreError, match=r"^the claim store does not answer: .") as caught:
                call()
            assert "hunter2" not in "".join(traceback.format_exception(caught.value)) + repr(caught.value)
            assert "\n" not in str(caught.value)
