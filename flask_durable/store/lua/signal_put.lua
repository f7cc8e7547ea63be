#!lua flags=allow-oom
-- Gives a signal to a run: to the step that waits for it, or into the run's inbox. (G2, G4)
--
-- KEYS[1] tag
-- ARGV[1] run id
-- ARGV[2] name of the signal
-- ARGV[3] its id: it is accepted once
-- ARGV[4] its data, opaque
-- ARGV[5] a mark of what it says, or "": a repeat with another mark is told so
-- ARGV[6] the time until which it is accepted, milliseconds since 1970, or "" for always
--
-- Reply   {"queued", time, function, queue}  the run has it, and its message is owed
--         {"taken"}          the run has it, now or before
--         {"other"}          it has one of that id with another mark
--         {"over"}           it came too late; nothing was changed
--         {"state", status}  the run has ended; nothing was changed
--         {"full"}           1,000 signals wait for the run, or it had 10,000
--         {"missing"}        there is no such run
--
-- It is given to a step only while the run is SUSPENDED on that step and the end of the
-- wait has not come. Otherwise it is put into the inbox, where run_suspend looks in the
-- script that would suspend the run for it. So no signal comes between the two.
--
-- A repeat finds the id, also after the run has ended, and after the time is over. Of
-- two that race with one id and two marks, the first one that comes here is accepted.

local MOST_WAITING = 1000
local MOST = 10000

local id, name, signal, data, mark = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local run = get(id, 'status', 'waiting', 'signal')
if not run[1] then return {'missing'} end
local inbox = signals_key(id)
local known = redis.call('HGET', inbox, 'id ' .. signal)
if known and known ~= mark then return {'other'} end
if known then return given(id) end
if terminal(run[1]) then return {'state', run[1]} end

local counts = redis.call('HMGET', inbox, 'accepted', 'kept')
if tonumber(counts[1] or '0') >= MOST then return {'full'} end

local now = clock()
if ARGV[6] ~= '' and now >= tonumber(ARGV[6]) then return {'over'} end
if run[1] == 'suspended' and run[2] and run[3] == name .. ' ' .. run[2] then
  local existing = redis.call('HGET', steps_key(id), run[2])
  local was, _, ends, order = head(existing)
  if was == 'waiting' and ends > now then
    local payload = string.match(existing, '^[^\n]*\n(.*)$')
    answer_wait(id, run[2], existing, memo('done', 'signal', now, order, payload .. data),
      now)
    redis.call('HINCRBY', inbox, 'accepted', 1)
    redis.call('HSET', inbox, 'id ' .. signal, mark)
    return given(id)
  end
end

if tonumber(counts[2] or '0') >= MOST_WAITING then return {'full'} end
local number = redis.call('HINCRBY', inbox, 'last ' .. name, 1)
redis.call('HSET', inbox, 'id ' .. signal, mark, 'at ' .. text(number) .. ' ' .. name, data)
redis.call('HINCRBY', inbox, 'accepted', 1)
redis.call('HINCRBY', inbox, 'kept', 1)
return given(id)
