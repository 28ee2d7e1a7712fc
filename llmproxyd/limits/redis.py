"""Rate limits of all hosts together, in Redis; of each host for itself while Redis is away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from llmproxyd.access.buckets import MINUTE, SLACK
from llmproxyd.limits.interface import Taken, Want
from llmproxyd.limits.memory import MemoryLimiter, taken
from llmproxyd.redis.interface import Redis

PREFIX = "llmproxyd:limit:"

SPEND, TAKE = 1, 0

SCRIPT = f"""
local force = ARGV[1] == '{SPEND}'
local clock = redis.call('TIME')
local now = clock[1] + clock[2] / 1000000
local levels, admitted = {{}}, true
for i = 1, #KEYS do
  local most, amount = tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1])
  local level, since = most, now
  local held = redis.call('GET', KEYS[i])
  if held then
    local one, two = string.match(held, '^(%S+) (%S+)$')
    level, since = tonumber(one) or most, tonumber(two) or now
    local elapsed = now - since
    if elapsed > 0 then level = level + elapsed * most / {MINUTE:.1f} end
    if level >= most then level = most end
  end
  levels[i] = level
  if level + {SLACK:.6f} < (amount > 0 and amount or 1) then admitted = false end
end
for i = 1, #KEYS do
  local most, amount = tonumber(ARGV[2 * i]), tonumber(ARGV[2 * i + 1])
  if force then
    levels[i] = math.max(levels[i] - amount, -most)
  elseif admitted then
    levels[i] = levels[i] - amount
  end
  local full = math.max(0, (most - levels[i]) * {MINUTE:.1f} / most)
  levels[i] = string.format('%.17g', levels[i])
  local held = levels[i] .. ' ' .. string.format('%.17g', now)
  redis.call('SET', KEYS[i], held, 'PX', math.ceil(full * 1000) + 1000)
end
return {{admitted and 1 or 0, unpack(levels)}}
"""
"""What :mod:`llmproxyd.access.buckets` does, by the server's clock.

A key holds the level and since when, and is gone once the bucket is full: a bucket that is not
there is a full one.
"""


class RedisLimiter:
    """Token buckets that all hosts share, one round trip a request.

    What is taken there is taken of this host's own buckets too, so that an outage does not give each
    key a fresh minute's allowance on every host.

    :param now: seconds of a monotonic clock, for the host's own buckets.
    :param prefix: of the keys.
    """

    log = Logger()

    def __init__(self, redis: Redis, now: Callable[[], float], prefix: str = PREFIX) -> None:
        self._redis = redis
        self._local = MemoryLimiter(now)
        self._prefix = prefix.encode()
        self._shared = True

    def take(self, wants: Sequence[Want]) -> Taken | Deferred[Taken]:
        """Take all of *wants*, or nothing; their keys differ."""
        if not wants:
            return Taken(0.0, ())
        call: Deferred[Any] = self._run(TAKE, wants)
        return call.addCallbacks(self._answered, self._alone, callbackArgs=(wants,), errbackArgs=(wants,))

    def spend(self, wants: Sequence[Want]) -> None:
        """Take the amounts in any case; nobody waits for it."""
        if wants:
            self._local.spend(wants)
            self._run(SPEND, wants).addCallbacks(self._spent, self._failed)

    def state(self) -> dict[str, object]:
        """``shared`` says whether the last call was answered; ``buckets`` are those of this host."""
        return self._local.state() | {"backend": "redis", "shared": self._shared}

    def close(self) -> None:
        """The link is not ours to close."""

    def _run(self, mode: int, wants: Sequence[Want]) -> Deferred[Any]:
        prefix = self._prefix
        keys = [prefix + want.key.encode("utf-8", "surrogatepass") for want in wants]
        arguments: list[bytes | int | str] = [mode]
        for want in wants:
            arguments += (want.per_minute, want.amount)
        return self._redis.script(SCRIPT, keys, arguments)

    def _answered(self, reply: list[Any], wants: Sequence[Want]) -> Taken:
        try:
            admitted, *raw = reply
            result = taken(wants, [float(level) for level in raw], bool(admitted))
        except (TypeError, ValueError) as error:
            return self._alone(Failure(error), wants)
        self._say(shared=True)
        if admitted:
            self._local.spend(wants)
        return result

    def _alone(self, failure: Failure, wants: Sequence[Want]) -> Taken:
        self._failed(failure)
        return self._local.take(wants)

    def _spent(self, _: object) -> None:
        self._say(shared=True)

    def _failed(self, failure: Failure) -> None:
        if self._shared:
            self.log.warn(
                "rate limits: each host counts for itself, Redis does not: {why}",
                why=failure.getErrorMessage(),
            )
        self._shared = False

    def _say(self, *, shared: bool) -> None:
        if shared and not self._shared:
            self.log.info("rate limits: all hosts count together again")
        self._shared = shared
