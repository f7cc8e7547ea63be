#!lua flags=allow-oom
-- Sets a QUEUED run aside because the code of its function is not here. (G4)
--
-- KEYS[1] tag
-- ARGV[1] run id
-- ARGV[2] milliseconds until the next try
-- ARGV[3] milliseconds after the first try until it is paused for an operator
--
-- Reply   {"deferred", due} | {"paused"} | {"no", status}
--
-- It is a mailbox write: a caller that finds the run in another state changes nothing,
-- and the answer about a run that is set aside already is the first one.

local id = ARGV[1]
local run = get(id, 'status', 'created', 'deferred_since', 'function', 'reason', 'due')
if run[1] == 'suspended' and run[5] == 'deferred' then return {'deferred', run[6]} end
if run[1] == 'paused' and run[3] then return {'paused'} end
if run[1] ~= 'queued' then return {'no', run[1] or ''} end

local now = clock()
local since = tonumber(run[3] or now)
unqueue(id)
if now - since >= tonumber(ARGV[3]) then
  pause(id, run[1], run[2], now, 'reason', 'no worker has the code of ' .. run[4])
  return {'paused'}
end
local due = now + tonumber(ARGV[2])
set_status(id, run[1], 'suspended', run[2])
put(id, 'reason', 'deferred', 'deferred_since', text(since), 'due', text(due))
redis.call('ZADD', tag .. ':timers', due, 'wake:' .. id)
return {'deferred', text(due)}
