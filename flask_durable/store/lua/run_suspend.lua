#!lua flags=allow-oom
-- Gives up a run: writes why, what wakes it, and the end of the lease, all at once.
-- (G3, G4, G5)
--
-- KEYS[1] tag
-- ARGV[1] run id
-- ARGV[2] token
-- ARGV[3] lease, milliseconds (renewed where the run stays with its owner)
-- ARGV[4] how: "sleep"     a step that waits for a time; its memo is then done
--              "event"     a step that waits for an event, up to a time
--              "signal"    a step that waits for a signal, up to a time
--              "poll"      a step that looks again at a time; its memo is then begun
--              "url"       a step that waits for the answer to an address, which is a
--                          signal; one that came in time is taken also after the end
--              "retry"     a step whose attempt failed
--              "body"      the function's body failed outside any step
--              "handback"  a worker that shuts down
--              "pause"     an operator has to look
-- ARGV[5] the time to go on: milliseconds from now, or since 1970 with a leading "@"
-- ARGV[6] reason, for a person
-- ARGV[7] step key, or ""
-- ARGV[8] number of the attempt (retry, body), otherwise 0
-- ARGV[9] payload of the step's memo, or the failure (body, pause), opaque; of a memo
--         that waits, the payload that it has when its timer is due
-- ARGV[10] the number of steps a run may have
-- ARGV[11] the bytes of memos a run may have
-- ARGV[12] name of the signal (signal, url), otherwise ""
--
-- Reply   {"suspended", due} | {"queued", time} | {"paused", "0"}
--         {"resolved", memo}   the awaited memo is there; the caller still owns the run
--         {"full", what}       "steps" or "bytes": the run has reached its limit, and
--                              the caller still owns it
--         {"lost"} | {"cancelled"}
--
-- The race with the writer of the awaited memo is closed by looking for the memo here,
-- where the run becomes wakeable: a memo from before this script is found, and after it
-- the writer finds a SUSPENDED run. A repeat finds its token remembered. A signal that is
-- in the inbox already is taken here, too, the oldest of its name first. A branch looks
-- into the inbox of its run, and stands in the line of its run if there is none.

-- The status that a waiting memo gets when its timer is due. The run's record keeps it
-- beside the step, for the sweep.
local BECOMES = {sleep = 'done', event = 'done', signal = 'done', url = 'done',
  poll = 'begun'}

local id, token, how, step = ARGV[1], ARGV[2], ARGV[4], ARGV[7]
local becomes = BECOMES[how]
local run = get(id, 'status', 'token', 'last_token', 'last_reply', 'created', 'dispatches',
  'bytes', 'removed', 'root')
if run[2] ~= token then
  if run[3] == token then
    local to, when = string.match(run[4], '^(%S+) (%S+)')
    if to ~= 'finished' then return {to, when} end
  end
  return refusal(run[1])
end

local now = clock()
local due
if string.sub(ARGV[5], 1, 1) == '@' then
  due = tonumber(string.sub(ARGV[5], 2))
else
  due = now + tonumber(ARGV[5])
end

local function leave(to, reply)
  disown(id, to, now)
  redis.call('ZREM', tag .. ':timers', 'wake:' .. id)
  put(id, 'last_token', token, 'last_reply', to .. ' ' .. reply)
  return {to, reply}
end

local function wait_until(time, reason)
  set_status(id, run[1], 'suspended', run[5])
  put(id, 'reason', reason, 'due', text(time))
  local reply = leave('suspended', text(time))
  redis.call('ZADD', tag .. ':timers', time, 'wake:' .. id)
  return reply
end

if how == 'pause' then
  pause(id, run[1], run[5], now, 'reason', ARGV[6], 'failure', ARGV[9])
  return leave('paused', '0')
end

if how == 'handback' then
  -- An interruption by a shutdown is no failure of the run: the claim is not counted.
  put(id, 'dispatches', text(math.max(tonumber(run[6]) - 1, 0)))
  if due > now then return wait_until(due, ARGV[6]) end
  enqueue(id, run[1], run[5], now)
  return leave('queued', text(now))
end

if how == 'body' then
  put(id, 'attempt', ARGV[8], 'dispatches', '0', 'failure', ARGV[9])
  return wait_until(due, ARGV[6])
end

local existing = redis.call('HGET', steps_key(id), step)
local memos = redis.call('HLEN', steps_key(id))
local was, number
local order = text(memos + (run[8] or 0))
if existing then
  local _
  was, _, number, order = head(existing)
  if was == 'done' or was == 'failed' then
    redis.call('ZADD', tag .. ':leases', now + tonumber(ARGV[3]), id)
    return {'resolved', existing}
  end
end

-- A retry goes from attempt k-1 to k only; a sleep's end is fixed when it is first
-- reached, however often it is replayed. So is the time of the next look of a poll.
local value
if how == 'retry' then
  value = memo('tried', token, tonumber(ARGV[8]), order, ARGV[9])
  if was == 'tried' and number >= tonumber(ARGV[8]) then value = existing end
else
  if was == 'waiting' then due = number end
  value = memo(due > now and 'waiting' or becomes, token, due, order, ARGV[9])
  -- What is awaited is that of the latest call: it may be of another release.
  local kept = how == 'sleep' or how == 'poll'
  if was == 'waiting' and due > now and kept then value = existing end
end
local taken
local inbox = signals_key(run[9] or id)
local looks = how == 'url' or how == 'signal' and due > now
if looks and not (run[9] and abandoned(id)) then
  local marks = redis.call('HMGET', inbox, 'taken ' .. ARGV[12], 'last ' .. ARGV[12])
  if (tonumber(marks[1] or '0')) < tonumber(marks[2] or '0') then
    taken = text(tonumber(marks[1] or '0') + 1)
    local data = redis.call('HGET', inbox, 'at ' .. taken .. ' ' .. ARGV[12])
    value, due = memo('done', token, now, order, ARGV[9] .. data), now
  end
end
local full = excess(existing, memos, value, run[7], ARGV[10], ARGV[11])
if full then return {'full', full} end

write_memo(id, step, existing, value)
put(id, 'dispatches', '0', 'attempt', '0')
if taken then
  redis.call('HSET', inbox, 'taken ' .. ARGV[12], taken)
  redis.call('HDEL', inbox, 'at ' .. taken .. ' ' .. ARGV[12])
  redis.call('HINCRBY', inbox, 'kept', -1)
end
if becomes then
  if due <= now then
    redis.call('ZADD', tag .. ':leases', now + tonumber(ARGV[3]), id)
    return {'resolved', value}
  end
  put(id, 'waiting', step, 'becomes', becomes)
  if how == 'signal' or how == 'url' then
    put(id, 'signal', ARGV[12] .. ' ' .. step)
    if run[9] then line_up(id, run[9], ARGV[12], step) end
  end
end
return wait_until(due, ARGV[6])
