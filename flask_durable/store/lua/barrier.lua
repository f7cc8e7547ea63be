#!lua flags=allow-oom
-- The small write that a barrier waits for: once it is durable, so is everything that
-- was written before it. (G6)
--
-- KEYS[1] tag
-- ARGV    none
--
-- Reply   the server's time

local now = text(clock())
redis.call('SET', tag .. ':barrier', now)
return now
