#!lua flags=allow-oom
-- Removes the entries of run messages that were sent from the outbox. (G4)
--
-- KEYS[1] tag
-- ARGV    run id, when the run was queued that the message told of; at most 100 times
--
-- Reply   the number of entries removed, by this call or before
--
-- A run may have been claimed, given up and queued again since: then the entry under its
-- name is owed for that, and removing it would leave the run without a message.

local confirmed = 0
for i = 1, #ARGV, 2 do
  local run = get(ARGV[i], 'queued_at', 'queue')
  if run[1] == ARGV[i + 1] then
    redis.call('ZREM', outbox_key(run[2]), 'run:' .. ARGV[i])
    confirmed = confirmed + 1
  end
end
return confirmed
