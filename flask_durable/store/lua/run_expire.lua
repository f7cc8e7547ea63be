#!lua flags=allow-oom
-- Removes a finished run whole, once its retention is over. (G10)
--
-- KEYS[1] tag
-- ARGV[1] run id
-- ARGV[2] "1" if the caller has removed its objects from the blob store, else "0"
--
-- Reply   1 if it is gone, by this call or before; 0 if it stays; 2 if its objects have
--         to be removed before it
--
-- State and time are looked at again here: between the sweep that named the run and
-- this call somebody may have retried it. A run with objects is marked first, and from
-- then on can be neither retried nor created anew: else objects of a run that lives
-- could be removed. A caller that dies with them leaves the mark, and the run is named
-- again a minute later.

local REMOVAL = 60000

local id = ARGV[1]
local run = get(id, 'status', 'function', 'blobs', 'expiring')
if not terminal(run[1]) then
  redis.call('ZREM', tag .. ':expire', id)
  return run[1] and 0 or 1
end
local now = clock()
local ends = tonumber(redis.call('ZSCORE', tag .. ':expire', id) or now + 1)
if not (run[4] and ARGV[2] == '1') then
  if ends > now then return run[4] and 2 or 0 end
  if run[3] then
    put(id, 'expiring', '1')
    redis.call('ZADD', tag .. ':expire', now + REMOVAL, id)
    return 2
  end
end

redis.call('UNLINK', run_key(id), steps_key(id), tag .. ':log:' .. id)
redis.call('ZREM', tag .. ':runs', id)
redis.call('ZREM', tag .. ':status:' .. run[1], id)
redis.call('ZREM', tag .. ':function:' .. run[2], id)
redis.call('ZREM', tag .. ':expire', id)
return 1
