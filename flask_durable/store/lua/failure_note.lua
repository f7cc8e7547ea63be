-- Notes the errors of messages that could not be processed. (G1, G10)
--
-- KEYS[1] tag
-- ARGV[1] token of the call
-- ARGV[2] the number of messages that are remembered
-- ARGV[3] milliseconds that they are remembered
-- ARGV[4] the subject of a message, "event:<id>" or "run:<id>", and
-- ARGV[5] the error of processing it; and so on for up to 100 messages
--
-- Reply   1
--
-- The last error stands. A repeated call finds its token. The oldest notes go, up to 200
-- a call: more than it adds. It may not write beyond the memory limit, since nothing
-- depends on it.

local failures, times = tag .. ':failures', tag .. ':failures:at'
local old = redis.call('HGET', failures, ARGV[4])
if old and string.match(old, '^%d+ (%S+)\n') == ARGV[1] then return 1 end

local now = clock()
for i = 4, #ARGV, 2 do
  local note = text(now) .. ' ' .. ARGV[1] .. '\n' .. ARGV[i + 1]
  redis.call('HSET', failures, ARGV[i], note)
  redis.call('ZADD', times, now, ARGV[i])
end

local oldest = now - tonumber(ARGV[3])
local over = redis.call('ZRANGEBYSCORE', times, '-inf', oldest, 'LIMIT', 0, 200)
local excess = redis.call('ZCARD', times) - tonumber(ARGV[2])
if #over == 0 and excess > 0 then
  over = redis.call('ZRANGEBYSCORE', times, '-inf', '+inf', 'LIMIT', 0,
    math.min(excess, 200))
end
if #over > 0 then
  redis.call('HDEL', failures, unpack(over))
  redis.call('ZREM', times, unpack(over))
end
return 1
