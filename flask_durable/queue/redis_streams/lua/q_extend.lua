#!lua flags=allow-oom
-- Hides messages in hand for longer; the delivery count stays. (G6)
--
-- KEYS[1] stream
-- ARGV[1] idle time in milliseconds that the messages get: 0 hides them the longest
-- ARGV    entry id, delivery count, consumer; at most 100 times
--
-- Reply   a receipt: 1 extended; 0 it is not ours, or gone
--
-- XCLAIM alone would steal a message back from the consumer that received it since, so
-- the receipt is compared first.

local replies = {}
for i = 2, #ARGV, 3 do
  local id, consumer = ARGV[i], ARGV[i + 2]
  local claimed = {}
  if held(KEYS[1], id, ARGV[i + 1], consumer) then
    claimed = redis.call(
      'XCLAIM', KEYS[1], GROUP, consumer, 0, id, 'IDLE', ARGV[1], 'JUSTID')
  end
  replies[#replies + 1] = #claimed
end
return replies
