#!lua flags=allow-oom
-- Moves a message in hand to the dead-letter queue. (G1, G8)
--
-- KEYS[1] stream
-- KEYS[2] dead-letter stream
-- ARGV[1] reason
-- ARGV[2] milliseconds that dead letters are kept
-- ARGV[3] how often it was received
-- ARGV    entry id, delivery count, consumer
--
-- Reply   {1} moved, also by an earlier call; {0} another consumer has it

local stream, dead = KEYS[1], KEYS[2]
local oldest = clock() - tonumber(ARGV[2])

return each_held(stream, 4, function(id)
  local entry = redis.call('XRANGE', stream, id, id)[1]
  if entry then
    local old = fields(id, entry[2])
    redis.call('XADD', dead, 'MINID', '~', string.format('%.0f', oldest), '*',
      'body', old.body, 'reason', ARGV[1],
      'receives', ARGV[3], 'sent', old.sent)
  end
  remove(stream, id)
end)
