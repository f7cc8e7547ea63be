#!lua flags=allow-oom
-- Renews the leases of a process, a batch a call. (G3, G4)
--
-- KEYS[1] tag
-- ARGV    run id, token, lease in milliseconds; at most 100 times
--
-- Reply   one word a run: "ok", "lost" or "cancelled"
--
-- An expired lease is renewed all the same while the token is still the run's: expiry
-- only permits the sweeper to act, so an outage or a jump of the clock takes nothing
-- from a healthy owner.

local now = clock()
local replies = {}
for i = 1, #ARGV, 3 do
  local run = get(ARGV[i], 'status', 'token')
  if run[2] == ARGV[i + 1] then
    redis.call('ZADD', tag .. ':leases', now + tonumber(ARGV[i + 2]), ARGV[i])
    replies[#replies + 1] = 'ok'
  else
    replies[#replies + 1] = refusal(run[1])[1]
  end
end
return replies
