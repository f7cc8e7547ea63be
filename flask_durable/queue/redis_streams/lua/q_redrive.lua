#!lua flags=allow-oom
-- Moves dead letters back into their queue, as new messages without receives. (G1)
--
-- KEYS[1] stream
-- KEYS[2] dead-letter stream
-- ARGV    ids of dead letters; at most 100
--
-- Reply   the number of ids
--
-- Added there and removed here in one script: none is lost with its mover, and none is
-- moved twice, by a repeated call or by two movers. A letter that is no longer here
-- counts as moved.

local stream, dead = KEYS[1], KEYS[2]
for _, id in ipairs(ARGV) do
  local entry = redis.call('XRANGE', dead, id, id)[1]
  if entry then
    redis.call('XADD', stream, '*', 'body', fields(id, entry[2]).body)
    redis.call('XDEL', dead, id)
  end
end
return #ARGV
