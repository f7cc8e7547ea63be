#!lua flags=allow-oom
-- Gives a QUEUED run to the caller. The memos are read by an HGETALL right behind it in
-- the same pipeline. (G3, G4)
--
-- KEYS[1] tag
-- ARGV[1] run id
-- ARGV[2] token, unique by its claimant
-- ARGV[3] lease, milliseconds
-- ARGV[4] the number of claims without progress after which a run is paused
-- ARGV[5] version of the claimant's code of the function
-- ARGV[6] when the message that led here was queued, milliseconds
--
-- Reply   {"claimed", field, value, ...}   the whole record
--         {"paused"}                       claimed too often without progress
--         {"no", status}                   another worker's, finished, or unknown ("")
--         {"orphan"}                       a branch that nobody waits for, or a child of
--                                          a map; nothing was changed. The caller cancels
--                                          a branch; a sweep cancels the child
--
-- Only a QUEUED run can be claimed: late, doubled and stale messages are harmless. The
-- same token gets the same answer, so a reply that was lost is asked for again.

local id, token = ARGV[1], ARGV[2]
local run = get(id, 'status', 'token', 'dispatches', 'created', 'queue', 'started',
  'paused_by', 'claims', 'queued_at', 'by')
local status, created = run[1], run[4]

if status == 'running' and run[2] == token then
  return {'claimed', unpack(redis.call('HGETALL', run_key(id)))}
end
if status == 'paused' and run[7] == token then return {'paused'} end
if status ~= 'queued' then return {'no', status or ''} end
if run[10] and orphaned(id) then return {'orphan'} end

local now = clock()
unqueue(id)

-- The sweeper needs these to tell a message that vanished from one that waits.
local delivered = 'delivered:' .. run[5]
local last = tonumber(redis.call('HGET', tag .. ':marks', delivered) or '0')
if tonumber(ARGV[6]) > last then
  redis.call('HSET', tag .. ':marks', delivered, ARGV[6])
end

if tonumber(run[3]) >= tonumber(ARGV[4]) then
  pause(id, status, created, now, 'reason',
    'claimed ' .. run[3] .. ' times without progress', 'paused_by', token)
  return {'paused'}
end

set_status(id, status, 'running', created)
put(id, 'token', token, 'dispatches', text(tonumber(run[3]) + 1),
  'claimed_at', text(now), 'version', ARGV[5],
  'claims', with_claim(run[8], tonumber(run[9]), now))
redis.call('HDEL', run_key(id), 'deferred_since', 'doubts')
if not run[6] then put(id, 'started', text(now)) end
redis.call('ZREM', tag .. ':timers', 'start:' .. id)
redis.call('ZADD', tag .. ':leases', now + tonumber(ARGV[3]), id)
return {'claimed', unpack(redis.call('HGETALL', run_key(id)))}
