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
local longest = 0
for i = 1, #ARGV, 3 do
  local run = get(ARGV[i], 'status', 'token')
  if run[2] == ARGV[i + 1] then
    local lease = tonumber(ARGV[i + 2])
    redis.call('ZADD', tag .. ':leases', now + lease, ARGV[i])
    longest = math.max(longest, lease)
    replies[#replies + 1] = 'ok'
  else
    replies[#replies + 1] = refusal(run[1])[1]
  end
end
if longest > 0 then longest_lease(longest) end
return replies
