-- Creates a run: QUEUED with its message owed, SUSPENDED until it may start, or RUNNING
-- in the hands of the caller. (G1, G4)
--
-- KEYS[1] tag
-- ARGV[1] run id
-- ARGV[2] token to claim it with, or "" to queue it
-- ARGV[3] lease, milliseconds
-- ARGV[4] milliseconds until the run is cancelled, 0 for never
-- ARGV[5] milliseconds until a run that has not started is cancelled, 0 for never
-- ARGV[6] not to start before this time, milliseconds since 1970, 0 for now
-- ARGV[7..] field, value, ...: function, queue, event and the rest of the record
--
-- Reply   {"claimed", now}     the caller owns the run
--         {"queued", time}     a run message is owed and not confirmed yet
--         {"scheduled", time}  it starts then
--         {"old", status}      the run exists; nothing was changed
--
-- The run's key is the dedupe record. EXISTS and HSET in one script decide the race of
-- two routers that hold the same event. A router that repeats its call gets its first
-- answer, by its token, by the entry still in the outbox, or by the state that the run
-- still waits in.

local id, token = ARGV[1], ARGV[2]
local key = run_key(id)

if redis.call('EXISTS', key) == 1 then
  local run = get(id, 'status', 'token', 'queued_at', 'claimed_at', 'reason', 'due',
    'queue')
  if token ~= '' and run[2] == token then return {'claimed', run[4]} end
  if run[1] == 'queued' and redis.call('ZSCORE', outbox_key(run[7]), 'run:' .. id) then
    return {'queued', run[3]}
  end
  if run[1] == 'suspended' and run[5] == 'scheduled' then return {'scheduled', run[6]} end
  return {'old', run[1]}
end

local now = clock()
local start = tonumber(ARGV[6])
redis.call('HSET', key, 'created', text(now), 'generation', '0', 'dispatches', '0',
  'attempt', '0', 'timeout', ARGV[4], unpack(ARGV, 7))
index(id, redis.call('HGET', key, 'function'), now)

arm_timeouts(id, math.max(now, start), tonumber(ARGV[4]), tonumber(ARGV[5]))

if start > now then
  set_status(id, '', 'suspended', now)
  put(id, 'reason', 'scheduled', 'due', text(start))
  redis.call('ZADD', tag .. ':timers', start, 'wake:' .. id)
  return {'scheduled', text(start)}
end

if token ~= '' then
  set_status(id, '', 'running', now, 'token', token, 'dispatches', '1',
    'started', text(now), 'claimed_at', text(now), 'queued_at', text(now),
    'claims', with_claim(nil, now, now))
  redis.call('ZREM', tag .. ':timers', 'start:' .. id)
  redis.call('ZADD', tag .. ':leases', now + tonumber(ARGV[3]), id)
  count_arrival(job_of(id))
  return {'claimed', text(now)}
end

enqueue(id, '', now, now)
return {'queued', text(now)}
