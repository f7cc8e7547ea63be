#!lua flags=allow-oom
-- Writes a step's memo for the run's owner and renews its lease. (G2, G3)
-- It is called more often than all others together: each write that it saves counts.
--
-- KEYS[1] tag
-- ARGV[1] run id
-- ARGV[2] token
-- ARGV[3] lease, milliseconds; 0 where the caller renewed it a moment ago
-- ARGV[4] step key
-- ARGV[5] "done", "failed" or "intent"
-- ARGV[6] number of the attempt
-- ARGV[7] payload, opaque
-- ARGV[8] how many steps a run may have
-- ARGV[9] how many bytes of memos a run may have
--
-- Reply   {"ok"}
--         {"exists", memo}     the step has an outcome already; that one stands
--         {"interrupted"}      an intent of another token is there without an outcome
--         {"full", what}       "steps" or "bytes": the run has reached its limit
--         {"lost"} | {"cancelled"}
--
-- The token is compared in the script that writes: between a check and a write outside,
-- a sweeper could hand the run to somebody else. An expired lease does not matter while
-- the token is still the run's. A memo with an outcome is never written over.

local id, token, step, status = ARGV[1], ARGV[2], ARGV[4], ARGV[5]
local run = get(id, 'status', 'token', 'bytes', 'dispatches', 'attempt')
if run[2] ~= token then return refusal(run[1]) end

local existing = redis.call('HGET', steps_key(id), step)
local value = memo(status, token, tonumber(ARGV[6]), ARGV[7])
if existing then
  local was, by = head(existing)
  if was == 'done' or was == 'failed' then
    if by == token then return {'ok'} end
    return {'exists', existing}
  end
  if was == 'intent' and by ~= token and status == 'intent' then
    return {'interrupted'}
  end
end
local full = excess(id, step, existing, value, run[3], ARGV[8], ARGV[9])
if full then return {'full', full} end

redis.call('HSET', steps_key(id), step, value)
local bytes = text(tonumber(run[3] or '0') + #value - #(existing or ''))
if run[4] == '0' and run[5] == '0' then
  put(id, 'bytes', bytes)
else
  put(id, 'bytes', bytes, 'dispatches', '0', 'attempt', '0')
end
if ARGV[3] ~= '0' then
  redis.call('ZADD', tag .. ':leases', clock() + tonumber(ARGV[3]), id)
end
return {'ok'}
