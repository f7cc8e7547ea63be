#!lua flags=allow-oom
-- Removes a finished run whole, once its retention is over. (G10)
--
-- KEYS[1] tag
-- ARGV[1] run id
--
-- Reply   1 if it is gone, by this call or before; 0 if it stays
--
-- State and time are looked at again here: between the sweep that named the run and
-- this call somebody may have retried it.

local id = ARGV[1]
local run = get(id, 'status', 'function')
if not terminal(run[1]) then
  redis.call('ZREM', tag .. ':expire', id)
  return run[1] and 0 or 1
end
local ends = redis.call('ZSCORE', tag .. ':expire', id)
if not ends or tonumber(ends) > clock() then return 0 end

redis.call('UNLINK', run_key(id), steps_key(id))
redis.call('ZREM', tag .. ':runs', id)
redis.call('ZREM', tag .. ':status:' .. run[1], id)
redis.call('ZREM', tag .. ':function:' .. run[2], id)
redis.call('ZREM', tag .. ':expire', id)
return 1
