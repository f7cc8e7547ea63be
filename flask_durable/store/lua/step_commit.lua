#!lua flags=allow-oom
-- Writes a step's memo for the run's owner and renews its lease. (G2, G3)
--
-- It is called more often than all others together. So each write that it saves counts,
-- and most of the functions of common.lua are written out here: each call would make
-- them again.
--
-- KEYS[1] tag
-- ARGV[1] run id
-- ARGV[2] token
-- ARGV[3] lease, milliseconds; 0 where the caller renewed it a moment ago
-- ARGV[4] step key
-- ARGV[5] "done", "failed" or "intent"
-- ARGV[6] number of the attempt
-- ARGV[7] payload, opaque
-- ARGV[8] the number of steps a run may have
-- ARGV[9] the bytes of memos a run may have
--
-- Reply   {"ok"}
--         {"exists", memo}     the step has an outcome already; that one stands
--         {"interrupted"}      an intent of another token is there without an outcome
--         {"full", what}       "steps" or "bytes": the run has reached its limit
--         {"lost"} | {"cancelled"}
--
-- The script that writes compares the token: between a check and a write outside, a
-- sweeper could give the run to another worker. An expired lease does not matter while
-- the token is still the run's. A memo with an outcome is never written over.

local id, token, step, status = ARGV[1], ARGV[2], ARGV[4], ARGV[5]
local key, steps = tag .. ':run:' .. id, tag .. ':steps:' .. id
local run = redis.call('HMGET', key, 'status', 'token', 'bytes', 'dispatches', 'attempt',
  'removed')
if run[2] ~= token then
  return {run[1] == 'cancelled' and 'cancelled' or 'lost'}
end

local existing = redis.call('HGET', steps, step)
local order
if existing then
  local was, by
  was, by, order = string.match(existing, '^(%S+) (%S+) %S+ (%d+)\n')
  if was == 'done' or was == 'failed' then
    if by == token then return {'ok'} end
    return {'exists', existing}
  end
  if was == 'intent' and by ~= token and status == 'intent' then
    return {'interrupted'}
  end
else
  local memos = redis.call('HLEN', steps)
  if memos >= tonumber(ARGV[8]) then return {'full', 'steps'} end
  order = memos + (run[6] or 0)
end

local value = status .. ' ' .. token .. ' ' .. ARGV[6] .. ' ' .. order .. '\n' .. ARGV[7]
local bytes = (run[3] or 0) + #value - #(existing or '')
if bytes > tonumber(ARGV[9]) then return {'full', 'bytes'} end

redis.call('HSET', steps, step, value)
if run[4] == '0' and run[5] == '0' then
  redis.call('HSET', key, 'bytes', bytes)
else
  redis.call('HSET', key, 'bytes', bytes, 'dispatches', '0', 'attempt', '0')
end
if ARGV[3] ~= '0' then
  redis.call('ZADD', tag .. ':leases', clock() + tonumber(ARGV[3]), id)
end
return {'ok'}
