#!lua flags=allow-oom
-- Moves delayed messages that are due to the stream. (G4)
--
-- KEYS[1] stream
-- KEYS[2] delayed
-- ARGV[1] the most messages, up to 100
--
-- Reply   milliseconds until the next one is due: 0 if it is already, -1 if none is left
--
-- A member is "token receives sent body". Moved and removed in one script: none is lost
-- with its mover, none is moved twice.

local stream, delayed = KEYS[1], KEYS[2]
local now = clock()

local due = redis.call('ZRANGEBYSCORE', delayed, '-inf', now, 'LIMIT', 0, ARGV[1])
for _, member in ipairs(due) do
  local receives, sent, body = string.match(member, '^%S+ (%d+) (%d+) (.*)$')
  redis.call('XADD', stream, '*', 'body', body, 'receives', receives, 'sent', sent)
  redis.call('ZREM', delayed, member)
end

local next_one = redis.call('ZRANGE', delayed, 0, 0, 'WITHSCORES')
if not next_one[2] then return -1 end
return math.max(0, next_one[2] - now)
