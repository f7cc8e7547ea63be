#!lua flags=allow-oom
-- Changes a run for an operator, a timeout or an application. (G3, G4)
--
-- KEYS[1] tag
-- ARGV[1] run id
-- ARGV[2] "cancel"   any unfinished run ends as CANCELLED, at once
--         "timeout"  the same, because its time is over
--         "unstarted" the same, because it has not started in time
--         "orphaned" the same, because its parent does not wait for it any more
--         "resume"   PAUSED -> QUEUED
--         "retry"    FAILED or CANCELLED -> QUEUED, from the step that failed
-- ARGV[3] token, unique by the caller
-- ARGV[4] reason
-- ARGV[5] retention, milliseconds (cancel)
-- ARGV[6..] cancel: event messages to send
--         retry: the generation that ended, or "" for whichever it is; then the names
--         of failed steps to run again, besides the one that failed the run
--
-- Reply   {"ok", time}        time: when it was queued; of a cancelled run, when its
--                             parent was; or "0". Of a cancelled branch "<time>:<id>",
--                             if another one has its room now
--         {"state", status}   the run is in no state for it; nothing was changed
--         {"unknown", step}   the step that failed the run ran at most once, and may have
--                             had its effect: it is run again only if it is named
--         {"step", name}      a step that is named has not failed
--         {"missing"}
--
-- A sweep names a timer that is due, and its caller comes back with it. In between the run
-- may have been paused, which stops its clocks, or have started. So the timer is looked
-- for here, where the run is cancelled.
--
-- An orphan is named by a sweep, or by the caller that cancelled its parent. The parent
-- is looked at here again: it may have been retried since, with a new child.
--
-- Cancelling voids the owner's token in the same write, so that no later write of the
-- owner can land. The caller's token is remembered: otherwise the repeat of a retry whose
-- reply was lost could retry a run that was retried and failed again. A dead letter that
-- is moved back, and may be received any number of times, names the generation instead.

local id, action, token = ARGV[1], ARGV[2], ARGV[3]
local run = get(id, 'status', 'created', 'generation', 'failed_step', 'timeout', 'started',
  'admin_token', 'admin_reply', 'expiring', 'function', 'reason', 'kind')
local status, created = run[1], run[2]
if not status then return {'missing'} end
if run[7] == token then return {'ok', run[8]} end
local now = clock()

local function answer(reply)
  put(id, 'admin_token', token, 'admin_reply', reply)
  return {'ok', reply}
end

local timers = {timeout = 'timeout:' .. id, unstarted = 'start:' .. id}
if action == 'cancel' or action == 'orphaned' or timers[action] then
  local timer = timers[action]
  if terminal(status) then
    redis.call('ZREM', tag .. ':timers', timers.timeout, timers.unstarted)
    return {'state', status}
  end
  if timer and not redis.call('ZSCORE', tag .. ':timers', timer) then
    return {'state', status}
  end
  if action == 'orphaned' and not orphaned(id) then return {'state', status} end
  local parent = settle(id, status, 'cancelled', created, now, tonumber(ARGV[5]))
  put(id, 'reason', ARGV[4])
  owe_events(id, run[3], 6, now)
  return answer(parent)
end

if action == 'resume' then
  if status ~= 'paused' then return {'state', status} end
  start_clocks(id, now)
else
  if status ~= 'failed' and status ~= 'cancelled' then return {'state', status} end
  -- A branch goes on when its run is retried, see branches_start.lua.
  if run[12] == 'branch' then return {'state', status} end
  -- Its objects in the blob store are being removed: it counts as gone.
  if run[9] then return {'missing'} end
  if (ARGV[6] or '') ~= '' and ARGV[6] ~= run[3] then return {'state', status} end
  local named = {}
  for n = 7, #ARGV do
    local memo = redis.call('HGET', steps_key(id), ARGV[n])
    if not memo or string.match(memo, '^%S+') ~= 'failed' then return {'step', ARGV[n]} end
    named[ARGV[n]] = true
  end
  if run[11] == 'outcome unknown' and not named[run[4]] then return {'unknown', run[4]} end
  -- Only the step that ended the run is tried again. A failed step that the function
  -- caught keeps its memo: the function has already gone another way because of it.
  if run[4] and run[4] ~= '' then remove_memo(id, run[4]) end
  for n = 7, #ARGV do remove_memo(id, ARGV[n]) end
  -- A child that is retried by itself is nobody's child any more, see tell_parent().
  redis.call('HDEL', run_key(id), 'failed_step', 'result', 'finished', 'reason', 'by')
  redis.call('ZREM', tag .. ':expire', id)
  put(id, 'generation', text(tonumber(run[3]) + 1))
  -- It has ended once in the counts, and will end again.
  count_run(run[10], 'started', now)
  arm_timeouts(id, now, tonumber(run[5]), 0)
end
redis.call('HDEL', run_key(id), 'deferred_since', 'failure')
put(id, 'dispatches', '0', 'attempt', '0')
enqueue(id, status, created, now)
return answer(text(now))
