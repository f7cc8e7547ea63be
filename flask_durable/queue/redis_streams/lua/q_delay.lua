-- Sends messages that may not be received before a delay is over. (G1)
--
-- KEYS[1] delayed
-- ARGV[1] delay in milliseconds
-- ARGV    a token made by the sender, body; at most 100 times
--
-- Reply   the number of messages
--
-- A repeated call writes the same members, so it sends nothing twice while the first
-- ones are still waiting.

local now = clock()
for i = 2, #ARGV, 2 do
  local member = table.concat({ARGV[i], 0, now, ARGV[i + 1]}, ' ')
  redis.call('ZADD', KEYS[1], now + tonumber(ARGV[1]), member)
end
return (#ARGV - 1) / 2
