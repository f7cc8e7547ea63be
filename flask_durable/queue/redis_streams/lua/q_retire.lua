#!lua flags=allow-oom
-- Removes consumers that nothing is pending for: one by name, and those long idle. (G10)
--
-- KEYS[1] stream
-- ARGV[1] consumer to remove now, or ""
-- ARGV[2] milliseconds after which an idle one is removed
--
-- Reply   how many were removed
--
-- Removing a consumer discards its pending list, and those messages would never be
-- delivered again: so it is only done to an empty one, looked at in the same script.

local consumers = redis.pcall('XINFO', 'CONSUMERS', KEYS[1], GROUP)
if consumers.err then return 0 end

local removed = 0
for _, values in ipairs(consumers) do
  local consumer = {}
  for i = 1, #values, 2 do consumer[values[i]] = values[i + 1] end
  local over = consumer.name == ARGV[1] or consumer.idle >= tonumber(ARGV[2])
  if over and consumer.pending == 0 and removed < 100 then
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], GROUP, consumer.name)
    removed = removed + 1
  end
end
return removed
