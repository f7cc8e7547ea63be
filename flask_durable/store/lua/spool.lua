-- Keeps events in the outbox that their queue did not take; any worker's sweep sends
-- them. (G1, G10)
--
-- KEYS[1] tag
-- ARGV[1] the number of events that the outbox may hold
-- ARGV[2..] entry, message, ...: at most 100 of them
--
-- Reply   for each entry 1 if it is kept, by this call or before, 0 if there is no room
--
-- An entry is named after the event's id and a digest of the message: the same message is
-- there once, however often its sender repeats the call, and another one with the same id
-- is never taken for it. If a sweep sends and confirms an entry before its repeated call
-- comes, it is there again and sent twice, which is harmless.
--
-- Unlike writes for accepted events, this is refused where the server's memory is full.

local limit = tonumber(ARGV[1])
local events = tag .. ':events'
local held = redis.call('HLEN', events)
local now = clock()
local kept = {}
for i = 2, #ARGV, 2 do
  local entry = ARGV[i]
  if redis.call('HEXISTS', events, entry) == 1 then
    kept[#kept + 1] = 1
  elseif held < limit then
    redis.call('HSET', events, entry, ARGV[i + 1])
    owe(EVENTS, entry, now)
    held = held + 1
    kept[#kept + 1] = 1
  else
    kept[#kept + 1] = 0
  end
end
return kept
