#!lua flags=allow-oom
-- Removes waits that have their answer from the home of their event's name. (G4)
--
-- KEYS[1] tag of the name's home
-- ARGV[1] name of the event
-- ARGV[2] id of an event whose time has come and that was delivered, or ""
-- ARGV[3..] run id, step key, stamp, ...
--
-- Reply   the number of waits that were named
--
-- A wait of another stamp stays: its run was retried in between, and waits again. A
-- repeat finds nothing. Bound: the caller names 500.

local name = ARGV[1]
for i = 3, #ARGV, 3 do
  forget_wait(name, ARGV[i] .. ' ' .. ARGV[i + 1], ARGV[i + 2])
end
if ARGV[2] ~= '' then
  redis.call('ZREM', tag .. ':timers', 'due:' .. name .. ' ' .. ARGV[2])
  redis.call('HDEL', tag .. ':coming', name .. ' ' .. ARGV[2])
end
return (#ARGV - 2) / 3
