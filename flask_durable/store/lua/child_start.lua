#!lua flags=allow-oom
-- Creates a child of a run for one of its steps, and suspends the run until the child
-- has ended, all at once. (G2, G3, G4, G5)
--
-- KEYS[1] tag
-- ARGV[1]  run id of the parent
-- ARGV[2]  token
-- ARGV[3]  lease, milliseconds (renewed where the run stays with its owner)
-- ARGV[4]  step key
-- ARGV[5]  milliseconds that the parent waits, 0 for as long as it takes
-- ARGV[6]  the beginning of the memo's payload, before the outcome
-- ARGV[7]  the failure that the memo gets if that time is over, opaque
-- ARGV[8]  the number of steps a run may have
-- ARGV[9]  the bytes of memos a run may have
-- ARGV[10] id of the child, which is new: it depends on the parent, when that was created,
--          the number of its retries, and the step
-- ARGV[11] milliseconds until the child is cancelled, 0 for never
-- ARGV[12] milliseconds until a child that has not started is cancelled, 0 for never
-- ARGV[13..] field, value, ...: function, queue, event and the rest of the child's record
--
-- Reply   {"suspended", due, time}   due: the end of the wait, or "0"; time: when the
--                                    child was created, whose message is owed
--         {"resolved", memo}         the step has its outcome; the caller owns the run
--         {"full", what}             "steps" or "bytes": the run has reached its limit,
--                                    and the caller still owns it
--         {"lost"} | {"cancelled"}
--
-- Parent and child share a partition, so one write has both: no death leaves a parent
-- that waits for nobody, or a child that nobody waits for. Races that this closes:
--
--   the parent is cancelled   before: its token is void, and no child is created.
--                             After: its end finds the child among the unfinished.
--   the parent is retried     its generation is another one, and so is the child's id:
--                             a new child is created, the memo waits for that one, and
--                             an older child that is still about is refused.
--   the child ends            it is SUSPENDED on the step by then, and is told.
--   the call is repeated      the token is remembered, with the reply. With another
--                             token it finds the step's outcome: a run goes on from
--                             here only when there is one, or under a new generation.
--
-- It creates one run, reads no list, and writes a bounded number of entries.

local id, token, step, child = ARGV[1], ARGV[2], ARGV[4], ARGV[10]
local run = get(id, 'status', 'token', 'last_token', 'last_reply', 'created', 'bytes',
  'removed', 'generation', 'function', 'queue')
if run[2] ~= token then
  if run[3] == token then
    local to, due, time = string.match(run[4], '^(%S+) (%S+) (%d+)$')
    if to == 'suspended' then return {to, due, time} end
  end
  return refusal(run[1])
end

local now = clock()
local existing = redis.call('HGET', steps_key(id), step)
local memos = redis.call('HLEN', steps_key(id))
local order, due = text(memos + (run[7] or 0)), tonumber(ARGV[5])
if due > 0 then due = now + due end
if existing then
  local was, _
  was, _, _, order = head(existing)
  if was == 'done' or was == 'failed' then
    redis.call('ZADD', tag .. ':leases', now + tonumber(ARGV[3]), id)
    return {'resolved', existing}
  end
end

local value = memo('waiting', token, due, order, ARGV[6] .. ARGV[7])
local full = excess(existing, memos, value, run[6], ARGV[8], ARGV[9])
if full then return {'full', full} end

redis.call('HSET', run_key(child), 'created', text(now), 'generation', '0',
  'dispatches', '0', 'attempt', '0', 'timeout', ARGV[11], 'kind', 'child',
  'parent', id, 'parent_step', step, 'parent_generation', run[8],
  'parent_function', run[9], 'parent_queue', run[10], 'parent_memo', ARGV[6],
  unpack(ARGV, 13))
index(child, redis.call('HGET', run_key(child), 'function'), now)
arm_timeouts(child, now, tonumber(ARGV[11]), tonumber(ARGV[12]))
enqueue(child, '', now, now)
redis.call('ZADD', tag .. ':children:' .. id, now, child)
redis.call('ZADD', tag .. ':unfinished:' .. id, now, child)

write_memo(id, step, existing, value)
disown(id, 'suspended', now)
set_status(id, run[1], 'suspended', run[5], 'reason', 'child', 'waiting', step,
  'becomes', 'failed', 'children', '1', 'dispatches', '0', 'attempt', '0',
  'last_token', token, 'last_reply', 'suspended ' .. text(due) .. ' ' .. text(now))
redis.call('ZREM', tag .. ':timers', 'wake:' .. id)
unwatch(id)
if due > 0 then
  put(id, 'due', text(due))
  redis.call('ZADD', tag .. ':parents', due, 'end:' .. id)
end
watch(id, 0, now)
return {'suspended', text(due), text(now)}
