#!lua flags=allow-oom
-- Takes run messages out of the outbox that were sent. (G4)
--
-- KEYS[1] tag
-- ARGV    run id, when the run was queued that the message told of; at most 100 times
--
-- Reply   how many are out, by this call or before
--
-- A run may have been claimed, let go of and queued again since: then the entry under
-- its name is owed for that, and taking it out would leave the run without a message.

local confirmed = 0
for i = 1, #ARGV, 2 do
  local run = get(ARGV[i], 'queued_at', 'queue')
  if run[1] == ARGV[i + 1] then
    redis.call('ZREM', outbox_key(run[2]), 'run:' .. ARGV[i])
    confirmed = confirmed + 1
  end
end
return confirmed
