"""Claims in PostgreSQL and SQLite: one row a job, one statement for the winner of a claim."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from sqlalchemy import Connection, String, bindparam, create_engine, inspect, make_url, text
from sqlalchemy.exc import DBAPIError

from .store import NUMBERS, TEXTS, Answer, Ask, Reason, answering, storable

#: The clock of each database, in milliseconds.
_NOW = {
    "postgresql": "CAST(extract(epoch FROM statement_timestamp()) * 1000 AS bigint)",
    "sqlite": "CAST((julianday('now') - 2440587.5) * 86400000 AS integer)",
}
#: Limits in seconds (`tcp_user_timeout`: milliseconds) on this side alone, and no prepared statements: PgBouncer in
#: transaction mode keeps neither those nor the settings of a session.
_CONNECT: dict[str, dict[str, Any]] = {
    "postgresql": {"connect_timeout": 3, "tcp_user_timeout": 3000, "prepare_threshold": None},
    "sqlite": {"timeout": 3},
}
_COLUMNS = ", ".join(
    [f"{name} bigint" + ("" if first is None else f" NOT NULL DEFAULT {first}") for name, first in NUMBERS.items()]
    + [f"{name} text" for name in TEXTS]
)

#: Which claims are due, by kind. One that is due is consumed, whether it is granted or not: nothing queues up.
_DUE = {
    "occurrence": "last_fire < :fire AND :fire <= {now} + :ahead",
    "start": "start_at <= {now} - :window",
    "extra": "true",
}
_CONSUMED = {
    "occurrence": {"before": "last_fire", "last_fire": ":fire"},
    "start": {"start_at": "{now}"},
    "extra": {},
}
#: When a claim that is due is granted, and what is written then.
_DONE = ":done LIKE '%' || token || '%'"
_FREE = f"(token IS NULL OR {_DONE} OR (lease_until <= {{now}} AND token <> :token))"
_FREE_FOR = dict.fromkeys(_DUE, f"paused = 0 AND {_FREE}") | {"extra": _FREE}
_GRANTED = {
    "token": ":token",
    "lease_until": "{now} + :lease",
    "holder": ":holder",
    "fire": ":fire",
    "started_at": "{now}",
    "schedule": ":schedule",
    "fence": "fence + 1",
}
#: What is written where the run before did not end: who made it, when its lease was over, and its fence.
_LOST = {"lost": "holder", "lost_at": "lease_until", "lost_fence": "fence"}


def _grant(kind: str) -> str:
    """Claims update first: an INSERT that resolves conflicts takes longer to plan, and locks the row for its losers."""
    lost = f"{_FREE_FOR[kind]} AND NOT {_DONE}"
    conditions = {_FREE_FOR[kind]: _GRANTED, lost: _LOST}
    sets = [f"{name} = {value}" for name, value in _CONSUMED[kind].items()] + [
        f"{name} = CASE WHEN {condition} THEN {value} ELSE {name} END"
        for condition, values in conditions.items()
        for name, value in values.items()
    ]
    return f"UPDATE bgjobs_claims SET {', '.join(sets)} WHERE key = :key AND {_DUE[kind]} RETURNING *, {{now}} AS now"


_LOOK = "SELECT *, {now} AS now FROM bgjobs_claims WHERE key = :key"
_STATEMENTS = {
    **{f"grant {kind}": _grant(kind) for kind in _DUE},
    "look occurrence": _LOOK,
    "look extra": _LOOK,
    # A start that is refused extends the time within which others are.
    "look start": """UPDATE bgjobs_claims SET start_at = {now} WHERE key = :key AND start_at > {now} - :window
 RETURNING *, {now} AS now""",
    "add": "INSERT INTO bgjobs_claims (key) VALUES (:key) ON CONFLICT DO NOTHING",
    "renew": """UPDATE bgjobs_claims SET lease_until = {now} + :lease WHERE key IN :keys AND token IN :tokens
 RETURNING token""",
    "release": """UPDATE bgjobs_claims SET token = NULL, lease_until = NULL, finished_at = {now}, outcome = :outcome,
 error = :error, before = CASE WHEN last_fire < :fire THEN last_fire ELSE before END,
 last_fire = CASE WHEN last_fire < :fire THEN :fire ELSE last_fire END
 WHERE key = :key AND token = :token""",
    "pause": "UPDATE bgjobs_claims SET paused = :paused WHERE key = :key",
    # Not LIKE, to which `_` is any character.
    "rows": "SELECT *, {now} AS now FROM bgjobs_claims WHERE substr(key, 1, length(:prefix)) = :prefix",
}


class SqlStore:
    """A claim store on an engine of SQLAlchemy, its own, in autocommit."""

    def __init__(self, url: str) -> None:
        where = make_url(url)
        backend = where.get_backend_name()
        if backend == "postgresql":
            where = where.set(drivername="postgresql+psycopg")
        self._url = url
        self._engine = create_engine(
            where,
            isolation_level="AUTOCOMMIT",
            connect_args=_CONNECT[backend],
            pool_timeout=3,
            hide_parameters=True,
        )
        self._has_table = False
        self._statements = {name: text(sql.replace("{now}", _NOW[backend])) for name, sql in _STATEMENTS.items()}
        lists = [bindparam(name, expanding=True, type_=String) for name in ("keys", "tokens")]
        self._statements["renew"] = self._statements["renew"].bindparams(*lists)

    def claim(self, ask: Ask) -> Answer:
        """Ask for a run: one statement where it is due, else two."""
        values = ask._asdict()
        while True:  # until nobody has changed the row between a statement and the next
            due = self._do(f"grant {ask.kind}", values)
            rows = due or self._do(f"look {ask.kind}", values)
            if not rows:
                self._do("add", values)
            elif answer := _judged(ask, rows[0], is_due=bool(due)):
                return answer

    def renew(self, held: Collection[tuple[str, str]], lease: int) -> set[str]:
        """Extend several leases in one statement."""
        values = {"keys": [key for key, _ in held], "tokens": [token for _, token in held], "lease": lease}
        return {row["token"] for row in self._do("renew", values)}

    def release(self, key: str, token: str, fire: int, outcome: str, error: str | None) -> None:
        """End a lease."""
        values = {"key": key, "token": token, "fire": fire, "outcome": outcome, "error": storable(error)}
        self._do("release", values)

    def pause(self, key: str, paused: bool) -> None:
        """Pause or resume a job."""
        self._do("add", {"key": key})
        self._do("pause", {"key": key, "paused": int(paused)})

    def rows(self, prefix: str) -> list[dict[str, Any]]:
        """The rows of some keys, in the order of Python: that of a database depends on its locale."""
        return sorted(self._do("rows", {"prefix": prefix}), key=lambda row: str(row["key"]))

    def close(self) -> None:
        """Close all connections."""
        self._engine.dispose()

    def _do(self, name: str, values: dict[str, Any]) -> list[dict[str, Any]]:
        """Run one statement in a transaction of its own, and once more where that failed for no fault of its own."""
        tries = 0
        with answering(self._url):
            while True:
                tries += 1
                try:
                    return self._tried(name, values)
                except DBAPIError as exc:
                    if not _once_more(exc, tries):
                        self._has_table = False  # perhaps somebody has dropped it
                        raise

    def _tried(self, name: str, values: dict[str, Any]) -> list[dict[str, Any]]:
        with self._engine.connect() as connection:
            if not self._has_table:
                _make_table(connection)
                self._has_table = True
            result = connection.execute(self._statements[name], values)
            return [dict(row) for row in result.mappings()] if result.returns_rows else []


def _judged(ask: Ask, row: dict[str, Any], *, is_due: bool) -> Answer | None:
    """What the row says of a claim that was due, or that was not; ``None`` where it is due by now."""
    now, last = row["now"], row["last_fire"]
    token = row["token"]
    if token == ask.token:  # or asked before, over a connection that broke before the answer came
        return Answer(None, now, row["fence"], row["lost"] if row["lost_fence"] == row["fence"] - 1 else None)
    reason: Reason | None = None
    if is_due:
        reason = "busy" if token and token not in ask.done and row["lease_until"] > now else "paused"
    elif ask.kind == "start":
        reason = "recent"
    elif ask.fire <= last:
        reason = "passed" if row["before"] < ask.fire < last else "claimed"
    else:
        reason = "early" if ask.fire > now + ask.ahead else None
    ahead = ask.fire - now if reason == "early" else 0
    return None if reason is None else Answer(reason, now, holder=row["holder"], since=row["started_at"], ahead=ahead)


def _once_more(error: DBAPIError, tries: int) -> bool:
    """Whether a statement that failed is to be tried again."""
    if error.connection_invalidated:  # it broke while it lay in the pool, which is new now
        return tries == 1
    # The database isolates transactions so that by default they fail where others wait for one another.
    return getattr(error.orig, "sqlstate", None) == "40001" and tries < 20


def _make_table(connection: Connection) -> None:
    """Make the table, unless another process does: IF NOT EXISTS does not keep two apart in PostgreSQL."""
    try:
        if not inspect(connection).has_table("bgjobs_claims"):
            connection.execute(text(f"CREATE TABLE IF NOT EXISTS bgjobs_claims (key text PRIMARY KEY, {_COLUMNS})"))
    except DBAPIError:
        if not inspect(connection).has_table("bgjobs_claims"):
            raise
