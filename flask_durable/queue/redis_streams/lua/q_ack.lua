#!lua flags=allow-oom
-- Deletes messages in hand. (G6)
--
-- KEYS[1] stream
-- ARGV    entry id, delivery count, consumer; at most 100 times
--
-- Reply   a receipt: 1 deleted, also by an earlier call; 0 another consumer has it

return each_held(KEYS[1], 1, function(id)
  remove(KEYS[1], id)
end)
