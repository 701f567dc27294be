"""Claims in Redis: one hash a job, one script a step."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

from redis import ConnectionError as Broken
from redis import Redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from .store import NUMBERS, TEXTS, Answer, Ask, answering, storable

#: What each script begins with: the clock of Redis, in milliseconds, and the one key that it touches.
_BEGIN = """
local time, key = redis.call('TIME'), KEYS[1]
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local function number(value) return tonumber(value) or 0 end
"""
_CLAIM = """
local kind, fire, token, done = ARGV[1], number(ARGV[2]), ARGV[3], ARGV[4]
local names = {'token', 'last_fire', 'before', 'lease_until', 'paused', 'start_at', 'holder', 'started_at', 'fence',
  'lost', 'lost_fence'}
local row = {}
for i, value in ipairs(redis.call('HMGET', key, unpack(names))) do row[names[i]] = value end
local had, last, fence = row.token, number(row.last_fire), number(row.fence)
local is_recent = kind == 'start' and number(row.start_at) > now - number(ARGV[9])

local function granted()
  return {'', now, fence, row.lost and number(row.lost_fence) == fence - 1 and row.lost or '', '', 0, 0}
end
local function refused(reason)
  return {reason, now, 0, '', row.holder or '', number(row.started_at), reason == 'early' and fire - now or 0}
end

redis.call('HSETNX', key, 'fence', fence)
if had == token then return granted() end
if kind == 'occurrence' then
  if fire <= last then return refused(number(row.before) < fire and fire < last and 'passed' or 'claimed') end
  if fire > now + number(ARGV[8]) then return refused('early') end
  redis.call('HSET', key, 'before', last, 'last_fire', fire)
elseif kind == 'start' then
  redis.call('HSET', key, 'start_at', now)
end
if is_recent then return refused('recent') end
local is_held = had and not done:find(had, 1, true)
if is_held and number(row.lease_until) > now then return refused('busy') end
if kind ~= 'extra' and number(row.paused) == 1 then return refused('paused') end

if is_held then
  row.lost, row.lost_fence = row.holder, fence
  redis.call('HSET', key, 'lost', row.holder, 'lost_at', row.lease_until, 'lost_fence', fence)
end
fence = fence + 1
redis.call('HSET', key, 'token', token, 'lease_until', now + number(ARGV[7]), 'holder', ARGV[5], 'fire', fire,
  'started_at', now, 'schedule', ARGV[6], 'fence', fence)
return granted()
"""
_RENEW = """
if redis.call('HGET', key, 'token') ~= ARGV[1] then return 0 end
redis.call('HSET', key, 'lease_until', now + number(ARGV[2]))
return 1
"""
_RELEASE = """
if redis.call('HGET', key, 'token') ~= ARGV[1] then return end
redis.call('HDEL', key, 'token', 'lease_until')
redis.call('HSET', key, 'finished_at', now, 'outcome', ARGV[3], 'error', ARGV[4])
local last, fire = number(redis.call('HGET', key, 'last_fire')), number(ARGV[2])
if last < fire then redis.call('HSET', key, 'before', last, 'last_fire', fire) end
"""
_PREFIX = "bgjobs:claims:"


class RedisStore:
    """A claim store on a client of redis-py, its own."""

    def __init__(self, url: str) -> None:
        self._url = url
        # A timeout is no broken connection: to wait once more would take longer than anybody waits for an answer.
        retry = Retry(NoBackoff(), 1, supported_errors=(Broken,))
        limits = {"socket_timeout": 3, "socket_connect_timeout": 3}
        self._redis: Any = Redis.from_url(url, decode_responses=True, retry=retry, retry_on_error=[Broken], **limits)
        scripts = (self._redis.register_script(_BEGIN + script) for script in (_CLAIM, _RENEW, _RELEASE))
        self._claim, self._renew, self._release = scripts

    def claim(self, ask: Ask) -> Answer:
        """Ask for a run."""
        with answering(self._url):
            reason, now, fence, lost, holder, since, ahead = self._claim([_PREFIX + ask.key], ask[1:])
        return Answer(reason or None, now, fence, lost or None, holder or None, since or None, ahead)

    def renew(self, held: Collection[tuple[str, str]], lease: int) -> set[str]:
        """Extend several leases in one round trip."""
        with answering(self._url), self._redis.pipeline(transaction=False) as pipe:
            for key, token in held:
                self._renew([_PREFIX + key], [token, lease], client=pipe)
            return {token for (_, token), kept in zip(held, pipe.execute(), strict=True) if kept}

    def release(self, key: str, token: str, fire: int, outcome: str, error: str | None) -> None:
        """End a lease."""
        with answering(self._url):
            self._release([_PREFIX + key], [token, fire, outcome, storable(error) or ""])

    def pause(self, key: str, paused: bool) -> None:
        """Pause or resume a job."""
        with answering(self._url):
            self._redis.hset(_PREFIX + key, "paused", int(paused))

    def rows(self, prefix: str) -> list[dict[str, Any]]:
        """The rows of some keys. A hash has only what somebody has written; the rest is filled in."""
        pattern = re.sub(r"([*?\[\]\\])", r"\\\1", _PREFIX + prefix) + "*"
        with answering(self._url), self._redis.pipeline(transaction=False) as pipe:
            keys = sorted(set(self._redis.scan_iter(pattern, count=1000)))
            pipe.time()
            for key in keys:
                pipe.hgetall(key)
            (seconds, micros), *hashes = pipe.execute()
        more = {"now": seconds * 1000 + micros // 1000}
        return [more | _row(key.removeprefix(_PREFIX), fields) for key, fields in zip(keys, hashes, strict=True)]

    def close(self) -> None:
        """Close all connections."""
        with answering(self._url):
            self._redis.close()


def _row(key: str, fields: dict[str, str]) -> dict[str, Any]:
    """Every column, with the values of a hash in their types."""
    row: dict[str, Any] = {"key": key, **NUMBERS, **TEXTS}
    for name, value in fields.items():
        row[name] = int(value) if name in NUMBERS else value or None
    return row
