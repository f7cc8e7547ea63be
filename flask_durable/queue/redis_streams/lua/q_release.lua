#!lua flags=allow-oom
-- Hands messages back: at once, or after a delay. (G4)
--
-- KEYS[1] stream
-- KEYS[2] delayed
-- ARGV[1] delay in milliseconds
-- ARGV    entry id, delivery count, consumer; at most 100 times
--
-- Reply   a receipt: 1 handed back, also by an earlier call; 0 another consumer has it
--
-- The message becomes a new entry that carries its receive count: an idle time that ran
-- out wakes no blocked reader, a new entry does.

local stream, delay = KEYS[1], tonumber(ARGV[1])
local due = clock() + delay

return each_held(stream, 2, function(id, count)
  local entry = redis.call('XRANGE', stream, id, id)[1]
  if entry then
    local old = fields(id, entry[2])
    local receives = old.receives + count
    if delay > 0 then
      local member = table.concat({id, receives, old.sent, old.body}, ' ')
      redis.call('ZADD', KEYS[2], due, member)
    else
      redis.call('XADD', stream, '*',
        'body', old.body, 'receives', receives, 'sent', old.sent)
    end
  end
  remove(stream, id)
end)
