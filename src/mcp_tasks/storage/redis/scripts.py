"""What is stored, and the scripts that store it.

All keys of a partition carry it as their hash tag, so that they lie on one node of a cluster:

- `<prefix>:{<partition>}:r:<sort>`, a hash: `data`, `version`, and `expires_at` in seconds, for
  people; the server itself removes it at its millisecond,
- `<prefix>:{<partition>}:i`, a sorted set with every sort of the partition, by byte,
- `<prefix>:{<partition>}:x`, a sorted set with those that expire, by when.

The two sets may name records that have expired. Listings leave those out and remove them, creates
remove a few, and the clean-up removes the rest, all by the server's clock.

In a write the record comes last: if the server stops the script at one of its commands (a right
that is missing, a key of another type), no record was changed. And what needs memory comes first: a
server that has none left stops a script only at a command before which it has written nothing.

The server lets a key live to the end of its millisecond, so it is told the one before.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple


class Script(NamedTuple):
    """A script, and the name under which the server keeps it."""

    text: str
    sha: bytes


def _script(text: str) -> Script:
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest().encode())


# KEYS: record, index, deadlines. ARGV: sort, data, expected version or '', expiry in ms or '',
# expiry in seconds or '', channel or ''. Returns the new version, or minus one less the actual one.
WRITE = _script("""
local old = redis.call('HMGET', KEYS[1], 'version', 'expires_at')
local version = tonumber(old[1] or '0')
if ARGV[3] ~= '' and version ~= tonumber(ARGV[3]) then return -1 - version end
if version == 0 then redis.call('ZADD', KEYS[2], 0, ARGV[1]) end
if ARGV[4] ~= '' then redis.call('ZADD', KEYS[3], ARGV[4], ARGV[1]) end
if version == 0 then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  for _, dead in ipairs(redis.call('ZRANGEBYSCORE', KEYS[3], '-inf', now, 'LIMIT', 0, 4)) do
    if dead ~= ARGV[1] then
      redis.call('ZREM', KEYS[2], dead)
      redis.call('ZREM', KEYS[3], dead)
    end
  end
end
if ARGV[4] ~= '' then
  redis.call('HSET', KEYS[1], 'version', version + 1, 'data', ARGV[2], 'expires_at', ARGV[5])
  redis.call('PEXPIREAT', KEYS[1], ARGV[4] - 1)
else
  redis.call('HSET', KEYS[1], 'version', version + 1, 'data', ARGV[2])
  if version == 0 or old[2] then redis.call('ZREM', KEYS[3], ARGV[1]) end
  if old[2] then
    redis.call('HDEL', KEYS[1], 'expires_at')
    redis.call('PERSIST', KEYS[1])
  end
end
if ARGV[6] ~= '' then redis.pcall('PUBLISH', ARGV[6], '') end
return version + 1
""")

# KEYS: record, index, deadlines. ARGV: sort, channel or ''. Returns 1 if there was a record.
DELETE = _script("""
local found = redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
if found == 1 and ARGV[2] ~= '' then redis.pcall('PUBLISH', ARGV[2], '') end
return found
""")

# KEYS: index, deadlines. ARGV: front of the records' keys, least and greatest sort as the server
# writes bounds, how many, '1' for backwards. Returns how it ended and the sort that was looked at
# last, then sort, data and version of each record. How it ended: 0 at the end, 1 with more to come,
# 2 for tired of removing the dead.
LIST = _script("""
local low, high, limit = ARGV[2], ARGV[3], tonumber(ARGV[4])
local chunk = math.min(limit + 1, 1000)
local out, count, dead, last = {0, ''}, 0, 0, ''
while true do
  local sorts
  if ARGV[5] == '1' then
    sorts = redis.call('ZREVRANGEBYLEX', KEYS[1], high, low, 'LIMIT', 0, chunk)
  else
    sorts = redis.call('ZRANGEBYLEX', KEYS[1], low, high, 'LIMIT', 0, chunk)
  end
  for _, sort in ipairs(sorts) do
    local record = redis.call('HMGET', ARGV[1] .. sort, 'data', 'version')
    if not record[2] then
      dead = dead + 1
      redis.call('ZREM', KEYS[1], sort)
      redis.call('ZREM', KEYS[2], sort)
    elseif count == limit then
      out[1] = 1
      return out
    else
      count = count + 1
      out[#out + 1] = sort
      out[#out + 1] = record[1]
      out[#out + 1] = record[2]
    end
    last = sort
  end
  out[2] = last
  if #sorts < chunk then return out end
  if dead >= 1000 then
    out[1] = 2
    return out
  end
  if ARGV[5] == '1' then high = '(' .. last else low = '(' .. last end
end
""")

# KEYS: index, deadlines. ARGV: until when in ms, how many. Returns how many were removed from them.
TRIM = _script("""
local time = redis.call('TIME')
local until_ms = math.min(time[1] * 1000 + math.floor(time[2] / 1000), tonumber(ARGV[1]))
local dead = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', until_ms, 'LIMIT', 0, ARGV[2])
for _, sort in ipairs(dead) do
  redis.call('ZREM', KEYS[1], sort)
  redis.call('ZREM', KEYS[2], sort)
end
return #dead
""")

ALL = (WRITE, DELETE, LIST, TRIM)


class Names:
    """The names of what is stored.

    Args:
        prefix: In front of all of them.
    """

    def __init__(self, prefix: str) -> None:
        self._front = f"{prefix}:{{"
        self.channel = f"{prefix}:changes".encode()
        self.all_deadlines = f"{_literal(prefix)}:{{*}}:x"

    def partition(self, partition: str) -> str:
        """Return what all keys of a partition begin with, its hash tag included."""
        # A brace would end the tag early; `%` so that no two partitions become one.
        tag = partition.replace("%", "%25").replace("}", "%7D")
        return f"{self._front}{tag}}}:"


def _literal(text: str) -> str:
    """Write a text so that a pattern of the server matches just that."""
    return "".join(f"\\{letter}" if letter in "*?[]^\\" else letter for letter in text)
