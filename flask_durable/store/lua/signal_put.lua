#!lua flags=allow-oom
-- Gives a signal to a run: to a step that waits for it, of the run or of one of its
-- branches, or into the run's inbox. (G2, G4)
--
-- KEYS[1] tag
-- ARGV[1] run id, not that of a branch
-- ARGV[2] name of the signal
-- ARGV[3] its id: it is accepted once
-- ARGV[4] its data, opaque
-- ARGV[5] a mark of what it says, or "": a repeat with another mark is told so
-- ARGV[6] the time until which it is accepted, milliseconds since 1970, or "" for always
--
-- Reply   {"queued", time, function, queue, run}  the run has it; the message is owed of
--                            the run that was queued: itself, or its branch
--         {"taken"}          the run has it, now or before
--         {"other"}          it has one of that id with another mark
--         {"over"}           it came too late; nothing was changed
--         {"state", status}  the run has ended; nothing was changed
--         {"full"}           1,000 signals wait for the run, or it had 10,000
--         {"missing"}        there is no such run
--
-- It is given to a step only while that run is SUSPENDED on the step and the end of the
-- wait has not come. Otherwise it is put into the inbox, where run_suspend looks in the
-- script that would suspend the run for it. So no signal comes between the two.
--
-- A run that has branches under way waits for them, so its branches stand in one line:
-- the first that waits for the name gets it. An inbox that keeps a signal of the name has
-- nobody in the line, as run_suspend would have given it. Branches that nobody waits for
-- are passed over. The line has no more members than the run has branches.
--
-- A repeat finds the id, also after the run has ended, and after the time is over, and the
-- branch that was queued. Of two that race with one id and two marks, the first one that
-- comes here is accepted.

local MOST_WAITING = 1000
local MOST = 10000
local PAGE = 100

local id, name, signal, data, mark = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local run = get(id, 'status', 'waiting', 'signal')
if not run[1] then return {'missing'} end
local inbox = signals_key(id)

local function gave(to)
  local reply = given(to)
  if reply[1] == 'queued' then reply[5] = to end
  return reply
end

local known = redis.call('HMGET', inbox, 'id ' .. signal, 'to ' .. signal)
if known[1] and known[1] ~= mark then return {'other'} end
if known[1] then return gave(known[2] or id) end
if terminal(run[1]) then return {'state', run[1]} end

local counts = redis.call('HMGET', inbox, 'accepted', 'kept')
if tonumber(counts[1] or '0') >= MOST then return {'full'} end

local now = clock()
if ARGV[6] ~= '' and now >= tonumber(ARGV[6]) then return {'over'} end

-- Gives the signal to a step of a run, if that waits for it; returns whether it does.
local function give(to, step)
  local waits = get(to, 'status', 'waiting', 'signal')
  if waits[1] ~= 'suspended' or waits[2] ~= step or waits[3] ~= name .. ' ' .. step then
    return false
  end
  local existing = redis.call('HGET', steps_key(to), step)
  local was, _, ends, order = head(existing)
  if was ~= 'waiting' or ends <= now or abandoned(to) then return false end
  local payload = string.match(existing, '^[^\n]*\n(.*)$')
  answer_wait(to, step, existing, memo('done', 'signal', now, order, payload .. data), now)
  redis.call('HINCRBY', inbox, 'accepted', 1)
  redis.call('HSET', inbox, 'id ' .. signal, mark)
  if to ~= id then redis.call('HSET', inbox, 'to ' .. signal, to) end
  return true
end

if run[2] and give(id, run[2]) then return gave(id) end

local from = 0
repeat
  local page = redis.call('ZRANGEBYLEX', line_key(id), '[' .. name .. ' ', '(' .. name .. '!',
    'LIMIT', from, PAGE)
  for _, place in ipairs(page) do
    local branch, step = string.match(place, '^%S+ %d+ (%S+) (.*)$')
    if give(branch, step) then return gave(branch) end
  end
  from = from + PAGE
until #page < PAGE

if tonumber(counts[2] or '0') >= MOST_WAITING then return {'full'} end
local number = redis.call('HINCRBY', inbox, 'last ' .. name, 1)
redis.call('HSET', inbox, 'id ' .. signal, mark, 'at ' .. text(number) .. ' ' .. name, data)
redis.call('HINCRBY', inbox, 'accepted', 1)
redis.call('HINCRBY', inbox, 'kept', 1)
return gave(id)
