"""What the cache in Redis does on the server, each in one step that nothing comes between."""

from __future__ import annotations

from typing import Final

GET: Final = """
local head = redis.call('HMGET', KEYS[1], 'i', 'o')
if not head[1] or not head[2] or #head[2] == 0 then return {} end
if not redis.call('ZSCORE', head[1], ARGV[1]) then
  redis.call('UNLINK', KEYS[1])
  return {}
end
local names = {}
for at = 1, #head[2], 16 do names[#names + 1] = string.sub(head[2], at, at + 15) end
return redis.call('HMGET', KEYS[1], unpack(names))
"""
"""All variants of a key, as its index lists it.  KEYS: entry.  ARGV: key in hex."""

PUT: Final = """
local entry, index = KEYS[1], KEYS[2]
local variant, value, lasts, key = ARGV[1], ARGV[2], tonumber(ARGV[3]), ARGV[4]
local most, bytes = tonumber(ARGV[5]), tonumber(ARGV[6])
local known = redis.call('ZSCORE', index, key)
local before = redis.call('HGET', entry, 'o') or ''
local order, left, total, gone = variant, most - 1, #value, {}
for at = 1, #before, 16 do
  local name = string.sub(before, at, at + 15)
  if name ~= variant then
    total = total + redis.call('HSTRLEN', entry, name)
    if known and left > 0 and total <= bytes then
      order, left = order .. name, left - 1
    else
      gone[#gone + 1] = name
    end
  end
end
redis.call('HSET', entry, variant, value, 'o', order, 'i', index)
if #gone > 0 then redis.call('HDEL', entry, unpack(gone)) end
lasts = math.max(lasts, redis.call('PTTL', entry))
redis.call('PEXPIRE', entry, lasts)
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
redis.call('ZREMRANGEBYSCORE', index, '-inf', now)
redis.call('ZADD', index, now + lasts, key)
redis.call('PEXPIRE', index, math.max(lasts, redis.call('PTTL', index)))
return 1
"""
"""Keep a variant.  KEYS: entry, index.  ARGV: name and value of the variant, milliseconds that it
lasts, key in hex, how many variants and how many bytes a key may have.

Where the index does not list the key, what is left of it was forgotten, and must not come back.
A server that is full refuses the first write of a script alone: that one has to be the large one.
"""

PURGE: Final = """
local page = redis.call('SCAN', ARGV[1], 'MATCH', ARGV[2], 'COUNT', ARGV[3])
local left, gone = tonumber(ARGV[3]), 0
for _, index in ipairs(page[2]) do
  local listed = redis.call('TYPE', index).ok == 'zset' and redis.call('ZRANGE', index, 0, left) or {}
  for _, key in ipairs(listed) do
    local entry = ARGV[4] .. key
    gone = gone + math.max(0, redis.call('HLEN', entry) - 2)
    redis.call('UNLINK', entry)
    redis.call('ZREM', index, key)
  end
  left = left - #listed
  if left <= 0 then return {gone, ARGV[1], 1} end
end
return {gone, page[1], page[1] == '0' and 0 or 1}
"""
"""One step of forgetting all that the indexes list whose names match.  ARGV: cursor, pattern, keys to
look at, prefix of the entries.  Returns how many there were, the next cursor and whether to go on.

Where there is more to forget than one step may, the cursor is the same again.
"""
