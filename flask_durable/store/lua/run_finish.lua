#!lua flags=allow-oom
-- Ends a run for its owner: outcome, indexes, retention, the failure handler's run and
-- the events that are owed, all in one script. (G1, G2, G10)
--
-- KEYS[1] tag
-- ARGV[1]  run id
-- ARGV[2]  token
-- ARGV[3]  "completed" or "failed"
-- ARGV[4]  result, or failure
-- ARGV[5]  retention, milliseconds
-- ARGV[6]  the step whose failure ended the run, or ""
-- ARGV[7]  reason, or "" (why a completed run did nothing, or that the outcome of
--          the step that failed the run is not known, see run_admin.lua)
-- ARGV[8]  id of the failure handler's run, or ""
-- ARGV[9]  its function
-- ARGV[10] its queue
-- ARGV[11..] event messages to send
--
-- Reply   {"finished", time, other}    when the handler's run was queued, and when its
--                                      parent was, or "0"; of a branch "<time>:<id>",
--                                      if another one has its room now
--         {"lost"} | {"cancelled"}
--
-- If a second call created the handler's run, a crash in between would lose it.

local id, token, to, handler = ARGV[1], ARGV[2], ARGV[3], ARGV[8]
local run = get(id, 'status', 'token', 'last_token', 'last_reply', 'created', 'generation',
  'event', 'event_id', 'event_name', 'kind')
if run[2] ~= token then
  if run[3] == token then
    local to, when, parent = string.match(run[4], '^(%S+) (%S+) (%S+)$')
    if to == 'finished' then return {to, when, parent} end
  end
  return refusal(run[1])
end

local now = clock()
local retention, parent = tonumber(ARGV[5])
if to == 'completed' and run[10] == 'branch' then
  -- Its result is kept with the group.
  parent = settle(id, run[1], to, run[5], now, retention, ARGV[4])
  redis.call('HDEL', run_key(id), 'failure')
elseif to == 'completed' then
  parent = settle(id, run[1], to, run[5], now, retention, ARGV[4], 'result', ARGV[4])
  redis.call('HDEL', run_key(id), 'failure')
else
  parent = settle(id, run[1], to, run[5], now, retention, ARGV[4])
  put(id, 'failure', ARGV[4], 'failed_step', ARGV[6])
end
if ARGV[7] ~= '' then put(id, 'reason', ARGV[7]) end

local queued = '0'
if handler ~= '' and redis.call('EXISTS', run_key(handler)) == 0 then
  queued = text(now)
  put(handler, 'function', ARGV[9], 'queue', ARGV[10], 'event', run[7], 'event_id', run[8],
    'event_name', run[9], 'kind', 'handler', 'cause', ARGV[4], 'failed_run', id,
    'failed_generation', run[6],
    'created', queued,
    'generation', '0', 'dispatches', '0', 'attempt', '0', 'timeout', '0')
  index(handler, ARGV[9], now)
  enqueue(handler, '', now, now)
end
put(id, 'last_token', token, 'last_reply', 'finished ' .. queued .. ' ' .. parent)
owe_events(id, run[6], 11, now)
return {'finished', queued, parent}
