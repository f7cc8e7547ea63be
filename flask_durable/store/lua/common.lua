-- Put before every other script of this folder when it is loaded.
--
-- KEYS[1] is always a partition's tag, "{<namespace>:<partition>}". Every key that a
-- script touches begins with it, so all of them live in one slot of a cluster.
--
--   <tag>:run:<id>        hash   the run
--   <tag>:steps:<id>      hash   step key -> memo,
--                                "<status> <token> <number> <order>\n<opaque text>";
--                                a checkpoint is in the text of an unfinished one
--   <tag>:log:<id>        list   its newest log lines, "<number> <token> <opaque text>"
--   <tag>:runs            zset   every run by the time it was created
--   <tag>:status:<s>      zset   the same, by status
--   <tag>:branches:<s>    zset   branches by status: they are no runs in lists and counts
--   <tag>:function:<f>    zset   the same, by function
--   <tag>:leases          zset   RUNNING runs by the end of their lease
--   <tag>:alive:<process> string  a process that cannot renew its leases lives; expires
--   <tag>:looks           hash   run -> "<token> <end> <end before>" of its lease, as the
--                                first look after that end left it
--   <tag>:lease           text   the longest lease that was asked for, milliseconds
--   <tag>:timers          zset   "wake:<id>", "timeout:<id>", "start:<id>" by due time;
--                                "orphans:<id>": children that it leaves are cancelled
--   <tag>:parents         zset   "end:<id>", "look:<id>" of runs that wait for a child, by
--                                the time when that is over, or is looked at
--   <tag>:queued          zset   QUEUED runs by the next time their message is doubted
--   <tag>:waiting:<q>:<f> zset   the same of one queue and function, by the time since when
--   <tag>:arrived         hash   "<q>:<f>" -> how often a run of them was queued, or
--                                claimed as it was created
--   <tag>:totals          hash   "<f>:<what>" -> how many runs began and ended so far
--   <tag>:counts:<hour>   hash   the same of one hour since 1970; expires
--   <tag>:marks           hash   what the workers saw of each queue (see sweep.lua)
--   <tag>:outbox:<queue>  zset   what is owed to a queue by the time to send again:
--                                "run:<id>"; "event:<...>" and "spool:<...>" to "events"
--   <tag>:outboxes        zset   those queues by the time to look what is owed to them
--   <tag>:events          hash   "event:<...>" and "spool:<...>" -> message text
--   <tag>:schedules       zset   schedules by the time up to which they are carried out
--   <tag>:functions       hash   the directory (see functions_publish.lua)
--   <tag>:expire          zset   finished runs by the end of their retention
--   <tag>:children:<id>   zset   the children of a run by the time they were created
--   <tag>:unfinished:<id> zset   those that have not ended yet
--   <tag>:group:<id>:<step> hash  the branches of a step (see branches_start.lua)
--   <tag>:next:<id>:<step> zset   those that wait for room, in their order
--   <tag>:list:<id>:<step> list   those that it is to have (see branches_list.lua)
--   <tag>:groups:<id>     set    the steps of a run that have branches
--   <tag>:failures        hash   "event:<id>", "run:<id>" -> "<time> <token>\n<error>"
--   <tag>:failures:at     zset   the same by the time that their message failed last
--   <tag>:used:<id>       set    "<name> <id>" of the events that waits of the run, and of
--                                its branches, have used
--   <tag>:signals:<id>    hash   its inbox: "id <id>" of each signal that it was given, with
--                                a mark of what an answer to an address says; "to <id>",
--                                the branch that got it;
--                                "at <number> <name>" -> data of one that no step has
--                                taken; "last <name>" and "taken <name>", the numbers of
--                                the newest and of the last one taken; "accepted" and
--                                "kept", how many there were, and how many are kept;
--                                "lined", the number of the newest place in the line
--   <tag>:line:<id>       zset   its branches that wait for a signal, all with the score
--                                0: "<name> <number> <branch> <step>"; the number is their
--                                place, with zeros before it
--
-- In the partition that the name of an event is hashed onto, its home:
--
--   <tag>:recent:<name>           hash  event id -> "<stamp> <digest>,<digest>\n<text>"
--   <tag>:recent:<name>|          zset  the same by their stamps
--   <tag>:recent:<name>|<digest>  zset  those that have this digest, by their stamps
--   <tag>:kept:<name>             hash  "last" stamp and "bytes" of recent; "cut", the
--                                       number that the bound in bytes cut off, and "cut_at",
--                                       the newest stamp of those; "since" when it is kept
--   <tag>:paths:<name>            hash  paths that waits compare, as JSON text ->
--                                       "<stamp> <until>": since when, until when
--   <tag>:waiters:<name>|<digest> zset  "<run> <step>" by stamp
--   <tag>:waits:<name>            hash  the same -> "<stamp> <end> <digest>\n<payload>"
--   <tag>:waits                   zset  "<name> <run> <step>" by the end of the wait
--   <tag>:coming                  hash  "<name> <event id>" -> text of an event that counts
--                                       later; the timer is "due:<name> <event id>"
--
-- A stamp is a time in microseconds, and differs from all others of its name.
--
-- All times are milliseconds of this server's clock. User data is never looked into.

local tag = KEYS[1]

-- An outbox entry that is not confirmed is sent again after this long.
local RESEND = 5000
-- A QUEUED run's message is doubted for the first time after this long.
local DOUBT = 60000
-- The doubt comes back after twice as long each time, this often: in an hour at last.
local DOUBLINGS = 6
-- The queue that events are owed to.
local EVENTS = 'events'
-- What was counted in an hour is kept for this long, in seconds.
local COUNTED = 8 * 24 * 3600
-- The number of claims that are kept in a run's record, the newest.
local CLAIMS = 20

local function run_key(id) return tag .. ':run:' .. id end
local function steps_key(id) return tag .. ':steps:' .. id end
local function signals_key(id) return tag .. ':signals:' .. id end
local function line_key(id) return tag .. ':line:' .. id end

-- The time in milliseconds, or in microseconds.
local function clock(fine)
  local time = redis.call('TIME')
  if fine then return time[1] * 1000000 + time[2] end
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function text(number) return string.format('%.0f', number) end

local function get(id, ...) return redis.call('HMGET', run_key(id), ...) end

local function put(id, ...) redis.call('HSET', run_key(id), ...) end

local function terminal(status)
  return status == 'completed' or status == 'failed' or status == 'cancelled'
end

-- The status, token, number and order at the head of a memo.
local function head(memo)
  local status, token, number, order =
    string.match(memo, '^(%S+) (%S+) (%-?%d+) (%d+)\n')
  return status, token, tonumber(number), order
end

-- A step's order is given at the first write of its memo, and kept: how many memos the
-- run had by then, those that a retry removed included. So no two steps have the same,
-- and it does not depend on a worker's clock.
local function memo(status, token, number, order, payload)
  return status .. ' ' .. token .. ' ' .. text(number) .. ' ' .. order .. '\n' .. payload
end

-- Returns the limit that a memo would take the run past, "steps" or "bytes", if any.
local function excess(existing, memos, value, bytes, max_steps, max_bytes)
  if not existing and memos >= tonumber(max_steps) then return 'steps' end
  local grown = tonumber(bytes or '0') + #value - #(existing or '')
  if grown > tonumber(max_bytes) then return 'bytes' end
end

-- Writes a memo in the place of what is there, and counts the bytes of all memos.
local function write_memo(id, step, existing, value)
  redis.call('HSET', steps_key(id), step, value)
  redis.call('HINCRBY', run_key(id), 'bytes', #value - #(existing or ''))
end

local function remove_memo(id, step)
  local length = redis.call('HSTRLEN', steps_key(id), step)
  if redis.call('HDEL', steps_key(id), step) == 0 then return end
  redis.call('HINCRBY', run_key(id), 'bytes', -length)
  redis.call('HINCRBY', run_key(id), 'removed', 1)
end

-- A branch is known by its id, see common/ids.py.
local function status_key(id, status)
  local index = string.find(id, '%.b%-[^.]*$') and ':branches:' or ':status:'
  return tag .. index .. status
end

-- Further arguments are fields and values, to be written with the status.
local function set_status(id, from, to, created, ...)
  if from ~= '' then redis.call('ZREM', status_key(id, from), id) end
  redis.call('ZADD', status_key(id, to), created, id)
  put(id, 'status', to, ...)
end

-- The text of all claims with a further one: "<number>:<time>:<milliseconds queued>",
-- behind which disown() writes how long it lasted and how it ended.
local function with_claim(claims, queued, now)
  local claim = ':' .. text(now) .. ':' .. text(math.max(now - queued, 0))
  if not claims then return '1' .. claim end
  local number = tonumber(string.match(claims, '(%d+):%S+$')) + 1
  if number - tonumber(string.match(claims, '^%d+')) >= CLAIMS then
    claims = string.match(claims, ' (.+)$')
  end
  return claims .. ' ' .. text(number) .. claim
end

-- Ends the claim of a run, if there is one: it was "lost", or came to a status.
local function disown(id, how, now)
  local claims = get(id, 'claims')[1]
  local claimed = claims and string.match(claims, ':(%d+):%d+$')
  if claimed then
    local lasted = math.max(now - tonumber(claimed), 0)
    put(id, 'claims', claims .. ':' .. text(lasted) .. ':' .. how)
  end
  redis.call('ZREM', tag .. ':leases', id)
  redis.call('HDEL', tag .. ':looks', id)
  redis.call('HDEL', run_key(id), 'token')
end

-- Queue and function of a run: the jobs that the scaler counts. And the queue alone.
local function job_of(id)
  local run = get(id, 'queue', 'function')
  return run[1] .. ':' .. run[2], run[1]
end

local function outbox_key(queue) return tag .. ':outbox:' .. queue end

-- Notes that a queue is owed an entry, to be sent by a sweep from a time on. Entries are
-- kept by queue, so that what one queue refuses is in the way of no other.
local function owe(queue, entry, from)
  redis.call('ZADD', outbox_key(queue), from, entry)
  redis.call('ZADD', tag .. ':outboxes', 'LT', from, queue)
end

local function count_arrival(job) redis.call('HINCRBY', tag .. ':arrived', job, 1) end

-- Counts a run that is "started", or ends as "completed", "failed" or "cancelled". In
-- the script that makes it so: counts of a process that is killed would not add up.
local function count_run(function_id, what, now)
  local field = function_id .. ':' .. what
  redis.call('HINCRBY', tag .. ':totals', field, 1)
  local hour = tag .. ':counts:' .. text(math.floor(now / 3600000))
  if redis.call('HINCRBY', hour, field, 1) == 1 then
    redis.call('EXPIRE', hour, COUNTED)
  end
end

-- Makes a run QUEUED and writes the message that is owed in the same script, so that no
-- crash can leave a QUEUED run without a message. The caller sends it; otherwise a sweep
-- does so a while later.
local function enqueue(id, from, created, now, send_from)
  set_status(id, from, 'queued', created, 'queued_at', text(now))
  redis.call('HDEL', run_key(id), 'reason', 'due')
  redis.call('ZADD', tag .. ':queued', now + DOUBT, id)
  local job, queue = job_of(id)
  owe(queue, 'run:' .. id, send_from or now + RESEND)
  redis.call('ZADD', tag .. ':waiting:' .. job, now, id)
  count_arrival(job)
end

-- Only a QUEUED run is in the first set, and only such a run owes a message.
local function unqueue(id)
  if redis.call('ZREM', tag .. ':queued', id) == 0 then return end
  local job, queue = job_of(id)
  redis.call('ZREM', tag .. ':waiting:' .. job, id)
  redis.call('ZREM', outbox_key(queue), 'run:' .. id)
end

-- Stops the clocks of a run that waits for an operator. The rest of them is kept, and
-- goes on when the run is resumed.
local function stop_timeouts(id, now)
  for _, kind in ipairs({'timeout', 'start'}) do
    local timer = kind .. ':' .. id
    local due = redis.call('ZSCORE', tag .. ':timers', timer)
    if due then
      redis.call('ZREM', tag .. ':timers', timer)
      put(id, kind .. '_left', text(math.max(tonumber(due) - now, 0)))
    end
  end
end

-- Lets these clocks go on, or begin where the run has had no room until now.
local function start_clocks(id, now)
  local left = get(id, 'timeout_left', 'start_left')
  for i, kind in ipairs({'timeout', 'start'}) do
    if left[i] then
      redis.call('ZADD', tag .. ':timers', now + tonumber(left[i]), kind .. ':' .. id)
    end
  end
  redis.call('HDEL', run_key(id), 'timeout_left', 'start_left')
end

local function pause(id, from, created, now, ...)
  stop_timeouts(id, now)
  set_status(id, from, 'paused', created, ...)
end

-- A run that waits for a child is looked at now and then: after a minute, and then each
-- time that it has waited as long again, up to an hour. Such a look finds a child that
-- ended under an older release, which tells no parent. These are no timers, as the sweep
-- of such a release would carry those out, and end the wait in another way.
local LONGEST_LOOK = 3600000
local function watch(id, waited, now)
  local look = now + math.min(math.max(waited, DOUBT), LONGEST_LOOK)
  redis.call('ZADD', tag .. ':parents', look, 'look:' .. id)
end

local function unwatch(id)
  redis.call('ZREM', tag .. ':parents', 'end:' .. id, 'look:' .. id)
end

-- A branch that waits for a signal stands in the line of its run, for as long as it is
-- SUSPENDED on that step.
local function line_up(id, root, name, step)
  local number = redis.call('HINCRBY', signals_key(root), 'lined', 1)
  local place = string.format('%s %016.0f %s %s', name, number, id, step)
  redis.call('ZADD', line_key(root), 0, place)
  put(id, 'in_line', place)
end

local function leave_line(id)
  local branch = get(id, 'in_line', 'root')
  if not branch[1] then return end
  redis.call('ZREM', line_key(branch[2]), branch[1])
  redis.call('HDEL', run_key(id), 'in_line')
end

-- Writes the memo of a step that waits for something, and queues the run if it is
-- SUSPENDED on that step. Returns the time when it was queued, or nil.
local function answer_wait(id, step, existing, value, now)
  local run = get(id, 'status', 'waiting', 'created')
  write_memo(id, step, existing, value)
  if run[1] ~= 'suspended' or run[2] ~= step then return end
  redis.call('ZREM', tag .. ':timers', 'wake:' .. id)
  unwatch(id)
  leave_line(id)
  redis.call('HDEL', run_key(id), 'waiting', 'becomes')
  enqueue(id, 'suspended', run[3], now)
  return now
end

-- The reply about a run that was given what it waits for: its message, if that is owed.
local function given(id)
  local run = get(id, 'status', 'queued_at', 'function', 'queue')
  local owed = run[1] == 'queued'
    and redis.call('ZSCORE', outbox_key(run[4]), 'run:' .. id)
  if owed then return {'queued', run[2], run[3], run[4]} end
  return {'taken'}
end

-- Returns the memo of a parent's step that still waits for the child, or nil. A parent
-- that was retried has a new child under its new generation, and gets no result of an
-- older one.
local function awaited_by(parent, step, generation)
  local run = get(parent, 'status', 'generation')
  if not run[1] or terminal(run[1]) or run[2] ~= generation then return end
  local existing = redis.call('HGET', steps_key(parent), step)
  if existing and string.sub(existing, 1, 8) == 'waiting ' then return existing end
end

-- The failure of a step whose child was cancelled.
local CANCELLED = '{"type":"RunCancelled","message":"the run was cancelled",'
  .. '"code":"run.cancelled"}'

local function group_key(parent, step) return tag .. ':group:' .. parent .. ':' .. step end
local function next_key(parent, step) return tag .. ':next:' .. parent .. ':' .. step end
local function list_key(parent, step) return tag .. ':list:' .. parent .. ':' .. step end

-- Returns the memo of a step that waits for its branches, or nil.
local function waiting_group(parent, step)
  local status = get(parent, 'status')[1]
  if not status or terminal(status) then return end
  local existing = redis.call('HGET', steps_key(parent), step)
  if existing and string.sub(existing, 1, 8) == 'waiting ' then return existing end
end

-- Returns the memo of a parent's step that still waits for the branch, or nil. The group
-- waits for those branches alone that its newest beginning asked for, named by its token.
local function awaited_branch(parent, step, by)
  if redis.call('HGET', group_key(parent, step), 'by') ~= by then return end
  return waiting_group(parent, step)
end

-- True for an unfinished child or branch that its parent does not wait for any more.
-- While a beginning still has pages to come it may ask for any branch that there is.
local function orphaned(id)
  local child = get(id, 'status', 'parent', 'parent_step', 'parent_generation', 'by')
  local parent, step = child[2], child[3]
  if not parent or terminal(child[1]) then return false end
  if not child[5] then return not awaited_by(parent, step, child[4]) end
  if awaited_branch(parent, step, child[5]) then return false end
  local pages = redis.call('HMGET', group_key(parent, step), 'filled', 'total')
  local begins = tonumber(pages[1] or '0') < tonumber(pages[2] or '0')
  return not (begins and waiting_group(parent, step))
end

-- True for a branch that is orphaned, or below one that is. What comes for its run is
-- not for it: the run may wait for the same once more.
local function abandoned(id)
  while true do
    local run = get(id, 'kind', 'parent')
    if run[1] ~= 'branch' then return false end
    if orphaned(id) then return true end
    id = run[2]
  end
end

local function has_unfinished(id)
  return redis.call('EXISTS', tag .. ':unfinished:' .. id) == 1
end

-- Notes that children which a run leaves behind are to be cancelled. A sweep names them,
-- so that their ends are told like all others; a script that cancelled a whole tree
-- would have no bound.
local function leave_orphans(id, now)
  if has_unfinished(id) then
    redis.call('ZADD', tag .. ':timers', now, 'orphans:' .. id)
  end
end

-- Writes the outcome of a step that has branches, for good: the branches that have not
-- ended are orphans from now on. A failure is that of the branch that decided it.
-- Returns the time when the parent was queued, or nil.
local function close_group(parent, step, existing, place, failure, now)
  local group = group_key(parent, step)
  local _, token, _, order = head(existing)
  local value
  if failure then
    value = memo('failed', token, now, order, redis.call('HGET', group, 'memo') .. failure)
  else
    value = memo('done', token, now, order, string.match(existing, '\n(.*)$'))
  end
  redis.call('HSET', group, 'decided', place)
  redis.call('UNLINK', next_key(parent, step), list_key(parent, step))
  local queued = answer_wait(parent, step, existing, value, now)
  leave_orphans(parent, now)
  return queued
end

-- The failure of a branch whose result has no room beside those of the others.
local TOO_LARGE = '{"type":"StepUsageError","message":"the results of the branches are '
  .. 'larger than 32 MiB together","code":"step.usage"}'

-- Counts a branch that ended in its group, once: with the outcome that it writes. The
-- last one, or the one that decides, ends the parent's step; another one makes room for
-- the next that waits. In the script that ends the branch, so no death comes between.
-- Returns the time when the parent was queued; "<time>:<id>" of the next branch; or "0".
local function tell_group(id, to, outcome, now)
  local branch = get(id, 'parent', 'parent_step', 'by', 'place')
  local parent, step, place = branch[1], branch[2], branch[4]
  if redis.call('ZREM', tag .. ':unfinished:' .. parent, id) == 0 then return '0' end
  local group, waiting = group_key(parent, step), next_key(parent, step)
  local had_room = redis.call('ZREM', waiting, id) == 0
  local existing = awaited_branch(parent, step, branch[3])
  -- A result counts in a later beginning of the group, too; a failure is tried again.
  if not existing and to ~= 'completed' then return '0' end
  local failure = to ~= 'completed' and (outcome or CANCELLED)
  local value = failure and 'failed ' .. failure or 'done ' .. outcome
  local bytes = tonumber(get(parent, 'bytes')[1] or '0')
  local known = redis.call('HMGET', group, 'most', 'until', 'tolerate', 'limit', 'failed')
  if not known[1] then return '0' end
  if bytes + #value > tonumber(known[1]) then
    failure = TOO_LARGE
    value = 'failed ' .. failure
  end
  if redis.call('HSETNX', group, '=' .. place, value) == 0 then return '0' end
  redis.call('HINCRBY', run_key(parent), 'bytes', #value)
  if not existing then return '0' end

  local ended = redis.call('HINCRBY', group, 'ended', 1)
  local under = redis.call('HINCRBY', group, 'under', had_room and -1 or 0)
  local failed = redis.call('HINCRBY', group, 'failed', failure and 1 or 0)
  if failed > tonumber(known[3]) or ended >= tonumber(known[2]) then
    local lost = failed > tonumber(known[3]) and failure
    local queued = close_group(parent, step, existing, place, lost, now)
    return queued and text(queued) or '0'
  end
  local following = redis.call('ZRANGE', waiting, 0, 0)[1]
  if not following or under >= tonumber(known[4]) then return '0' end
  redis.call('ZREM', waiting, following)
  redis.call('HINCRBY', group, 'under', 1)
  enqueue(following, 'suspended', get(following, 'created')[1], now)
  start_clocks(following, now)
  return text(now) .. ':' .. following
end

-- Tells the parent of a child how it ended: the first answer to the step stands, be it
-- this one or the end of the wait. In the script that ends the child, so no death comes
-- between. Returns the time when the parent was queued, or "0".
local function tell_parent(id, to, outcome, now)
  local child = get(id, 'parent', 'parent_step', 'parent_generation', 'parent_memo')
  local parent, step = child[1], child[2]
  -- A child that ended, and was retried by itself, is nobody's child any more.
  if redis.call('ZREM', tag .. ':unfinished:' .. parent, id) == 0 then return '0' end
  local existing = awaited_by(parent, step, child[3])
  if not existing then return '0' end
  local _, token, _, order = head(existing)
  local value = memo(to == 'completed' and 'done' or 'failed', token, now, order,
    child[4] .. (outcome or CANCELLED))
  local queued = answer_wait(parent, step, existing, value, now)
  return queued and text(queued) or '0'
end

-- Tells the run above how a child or a branch ended. One that a step has with others is
-- named by its group, see branches_start.lua.
local function tell_above(id, parent, by, to, outcome, now)
  if by then return tell_group(id, to, outcome, now) end
  return parent and tell_parent(id, to, outcome, now) or '0'
end

-- Removes all that a run leaves behind at its end, except its record. Every run ends
-- here, however it ends: other parts that have to know of it are told here and nowhere
-- else. The outcome is the result or the failure; none of a run that was cancelled.
-- Returns the time when its parent was queued, "<time>:<id>" of a branch that has its
-- room now, or "0".
local function settle(id, from, to, created, now, retention, outcome, ...)
  disown(id, to, now)
  unqueue(id)
  redis.call('ZREM', tag .. ':timers', 'wake:' .. id, 'timeout:' .. id, 'start:' .. id)
  redis.call('HDEL', run_key(id), 'due', 'waiting', 'becomes', 'timeout_left',
    'start_left')
  set_status(id, from, to, created, 'finished', text(now), ...)
  redis.call('ZADD', tag .. ':expire', now + retention, id)
  local run = get(id, 'function', 'parent', 'children', 'kind', 'by')
  if run[3] then
    unwatch(id)
    leave_orphans(id, now)
  end
  -- A branch is a part of its run, and no run in the counts.
  if run[4] == 'branch' then leave_line(id) else count_run(run[1], to, now) end
  return tell_above(id, run[2], run[5], to, outcome, now)
end

-- Events that are owed are kept whole, apart from the run that owes them.
local function owe_events(id, generation, first, now)
  for i = first, #ARGV do
    local entry = 'event:' .. id .. ':' .. generation .. ':' .. (i - first)
    redis.call('HSET', tag .. ':events', entry, ARGV[i])
    owe(EVENTS, entry, now + RESEND)
  end
end

-- The reason why an owner's write is refused: the run was cancelled, or has a new owner.
local function refusal(status)
  if status == 'cancelled' then return {'cancelled'} end
  return {'lost'}
end

-- Returns the longest lease that any caller asked for, this one included. A lease that
-- ends later was given before the clock was set back.
local function longest_lease(asked)
  local longest = tonumber(redis.call('GET', tag .. ':lease') or '0')
  if asked <= longest then return longest end
  redis.call('SET', tag .. ':lease', text(asked))
  return asked
end

local function arm_timeouts(id, now, timeout, start_timeout)
  if timeout > 0 then
    redis.call('ZADD', tag .. ':timers', now + timeout, 'timeout:' .. id)
  end
  if start_timeout > 0 then
    redis.call('ZADD', tag .. ':timers', now + start_timeout, 'start:' .. id)
  end
end

-- Versions of functions that the directory looks at, at most.
local VERSIONS = 10000

-- The function of a version in the directory, "<function id> <version>".
local function id_of(name) return string.match(name, '^%S+') end

-- The schedules of a function by the names that their marks have. A description that is
-- not understood has none: it is of other code.
local function schedules_of(id, description)
  local read, found = pcall(cjson.decode, description or '')
  local crons = read and type(found) == 'table' and found.crons
  local names = {}
  for _, cron in ipairs(type(crons) == 'table' and crons or {}) do
    if type(cron) == 'table' then
      names[#names + 1] = id .. ' ' .. tostring(cron.expression) .. ' '
        .. tostring(cron.timezone)
    end
  end
  return names
end

-- Adds a new run to the indexes, and counts it.
local function index(id, function_id, created)
  count_run(function_id, 'started', created)
  redis.call('ZADD', tag .. ':runs', created, id)
  redis.call('ZADD', tag .. ':function:' .. function_id, created, id)
end

-- The number of events or waits that are removed at the side of another write.
local PRUNED = 100

local function recent_key(name, digest)
  return tag .. ':recent:' .. name .. (digest and '|' .. digest or '')
end

local function waiters_key(name, digest) return tag .. ':waiters:' .. name .. '|' .. digest end

local function waits_key(name) return tag .. ':waits:' .. name end

local function paths_key(name) return tag .. ':paths:' .. name end

local function kept_key(name) return tag .. ':kept:' .. name end

-- Keeps a key for some milliseconds, or for longer if it is kept for longer.
local function keep(key, milliseconds)
  if redis.call('PTTL', key) < milliseconds then
    redis.call('PEXPIRE', key, text(milliseconds))
  end
end

-- Returns the next stamp of a name. It is larger than the last one even if the clock was
-- set back, so events and waits of the name have one order.
local function next_stamp(name)
  local last = tonumber(redis.call('HGET', kept_key(name), 'last') or '0')
  local stamp = math.max(clock(true), last + 1)
  redis.call('HSET', kept_key(name), 'last', text(stamp))
  return stamp
end

-- The time of a stamp, milliseconds.
local function time_of(stamp) return math.floor(tonumber(stamp) / 1000) end

-- Removes the oldest events of a name that are older than the look-back, or beyond the
-- bound in bytes; those are counted. The newest one stays.
local function prune(name, now, look_back, size)
  local all, kept = recent_key(name, ''), kept_key(name)
  for _ = 1, PRUNED do
    local oldest = redis.call('ZRANGE', all, 0, 1, 'WITHSCORES')
    if not oldest[3] then return end
    local over = tonumber(redis.call('HGET', kept, 'bytes') or '0') > size
    if not over and time_of(oldest[2]) >= now - look_back then return end
    local entry = redis.call('HGET', recent_key(name), oldest[1])
    redis.call('ZREM', all, oldest[1])
    if entry then
      local digests = string.match(entry, '^%d+ (%S*)\n')
      for digest in string.gmatch(digests, '[^,]+') do
        redis.call('ZREM', recent_key(name, digest), oldest[1])
      end
      redis.call('HDEL', recent_key(name), oldest[1])
      redis.call('HINCRBY', kept, 'bytes', -#entry)
    end
    if over then
      redis.call('HINCRBY', kept, 'cut', 1)
      redis.call('HSET', kept, 'cut_at', oldest[2])
    end
  end
end

-- Removes a wait from its name's home, if it is the one of that stamp.
local function forget_wait(name, member, stamp)
  local wait = redis.call('HGET', waits_key(name), member)
  if not wait then return end
  local was, digest = string.match(wait, '^(%d+) %d+ (%S*)\n')
  if stamp and was ~= stamp then return end
  redis.call('HDEL', waits_key(name), member)
  redis.call('ZREM', waiters_key(name, digest), member)
  redis.call('ZREM', tag .. ':waits', name .. ' ' .. member)
end

-- Removes a finished run whole.
local function remove(id, status, function_id)
  local run = get(id, 'parent', 'children')
  if run[1] then redis.call('ZREM', tag .. ':children:' .. run[1], id) end
  if run[2] then
    for _, step in ipairs(redis.call('SMEMBERS', tag .. ':groups:' .. id)) do
      redis.call('UNLINK', group_key(id, step), next_key(id, step), list_key(id, step))
    end
    redis.call('UNLINK', tag .. ':groups:' .. id)
  end
  redis.call('UNLINK', run_key(id), steps_key(id), tag .. ':log:' .. id,
    tag .. ':children:' .. id, tag .. ':used:' .. id,
    signals_key(id), line_key(id))
  redis.call('ZREM', tag .. ':runs', id)
  redis.call('ZREM', status_key(id, status), id)
  redis.call('ZREM', tag .. ':function:' .. function_id, id)
  redis.call('ZREM', tag .. ':expire', id)
end
