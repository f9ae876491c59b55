"""What Redis runs for us in one go: functions would do, but the bundled server has none."""

from __future__ import annotations

from hashlib import sha1

# Appends with the ids that the log gave, so that a repeat is refused entry by entry. What is
# already there must be the same message, else this mirror belongs to another history and starts
# afresh; so it does where the messages do not follow on it, since its end was lost: no hole stays.
# Returns how many were appended, how many were there, and whether it started afresh.
MIRROR = """
local key, first, n, afresh = KEYS[1], tonumber(ARGV[1]), #ARGV - 2, 0
local newest = redis.call('XREVRANGE', key, '+', '-', 'COUNT', 1)[1]
local last = newest and tonumber(string.match(newest[1], '^(%d+)')) or 0
if last >= first then
  local same = math.min(last, first + n - 1)
  local there = redis.call('XRANGE', key, same .. '-0', same .. '-0')[1]
  if there and there[2][2] ~= ARGV[same - first + 3] then
    redis.call('DEL', key)
    last, afresh = 0, 1
  end
end
if last > 0 and last < first - 1 then
  redis.call('DEL', key)
  last, afresh = 0, 1
end
local from = math.max(first, last + 1)
for position = from, first + n - 1 do
  local message = ARGV[position - first + 3]
  redis.call('XADD', key, position .. '-0', 'message', message)
end
redis.call('XTRIM', key, 'MAXLEN', '~', ARGV[2])  -- once: with each XADD it is half of the cost
return {math.max(0, first + n - from), from - first, afresh}
"""

APPEND = """
local ids = {}
for i = 1, #ARGV do ids[i] = redis.call('XADD', KEYS[1], '*', 'message', ARGV[i]) end
return ids
"""

REPLY = """
local ids = {}
for i = 2, #ARGV do
  ids[i - 1] = redis.call('XADD', KEYS[1], 'MAXLEN', '~', 100000, '*', 'message', ARGV[i])
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
return ids
"""
"""The same for answers, which nobody may ever read: their stream is bounded, and goes by itself."""

DIGESTS = {script: sha1(script.encode()).hexdigest() for script in (MIRROR, APPEND, REPLY)}  # noqa: S324
