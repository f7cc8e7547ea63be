#!lua flags=allow-oom
-- Creates branches of a run for one of its steps, a page at a time, and with the last
-- page suspends the run until enough of them have ended. A branch may be a child, which
-- is a run of another function. (G2, G3, G4, G5)
--
-- KEYS[1] tag
-- ARGV[1]  run id of the parent
-- ARGV[2]  token
-- ARGV[3]  lease, milliseconds (renewed where the run stays with its owner)
-- ARGV[4]  step key
-- ARGV[5]  the beginning of the memo's payload, before the JSON
-- ARGV[6]  the JSON of the memo
-- ARGV[7]  the number of steps a run may have; each branch counts as one
-- ARGV[8]  the bytes that a run may have; items and results of branches count
-- ARGV[9]  the number of branches in earlier pages
-- ARGV[10] the number of branches in all pages
-- ARGV[11] the number of ended branches that ends the step
-- ARGV[12] the number of branches that may be under way
-- ARGV[13] the number of branches that may fail
-- ARGV[14] 0, or if the branches are children the number of the arguments that follow
-- ARGV[15..] these: field, value, ... that the records of all children have: function,
--          queue, timeout; and timeout_left and start_left, milliseconds that are counted
--          from when the child is QUEUED
-- then     place, id, item, ... of at most 250 branches; or place, id, event, id of the
--          event, name of the event, ... of so many children. The id depends on the
--          parent, when that was created, the step and the place
--
-- Reply   {"more", branches}        the next page is awaited; the caller owns the run
--         {"suspended", branches}   that was the last page
--         {"resolved", memo}        the step has its outcome; the caller owns the run
--         {"full", what}            "steps" or "bytes": the run has reached its limit,
--                                   and the caller still owns it
--         {"lost"} | {"cancelled"}
--         branches                  {id, time} ... of those in this page that are
--                                   QUEUED, whose messages are owed
--
-- The group of the step is one hash:
--
--   by        the token of the attempt that began it last
--   filled, total   the number of branches in the pages so far, and in all pages
--   again     "1" if it was begun before, otherwise ""
--   under     the number of branches that are under way
--   ended, failed   the number of branches that ended, and of those that failed
--   until, limit, tolerate, most, memo   as in ARGV[11], [12], [13], [8], [5]
--   decided   the place whose branch ended the step
--   =<place>  "done <result>" or "failed <failure>": its outcome
--
-- A branch counts while the memo waits and the branch was asked for by the newest
-- beginning. Races that this closes:
--
--   a death between two pages   the next owner begins again from the first page: what
--                               exists goes on, and is asked for by the new token. No
--                               branch is an orphan before the last page. The items of
--                               a map are those of branches_list.lua.
--   a branch ends               before the last page: it is counted, and the last page
--                               finds the outcome. After: the parent is SUSPENDED.
--   the parent is retried       a branch that is done stays so, one that is under way is
--                               kept, and one that failed or was cancelled goes on from
--                               its memos, as a run that is retried.
--   the call is repeated        the page is filled, or the token is remembered.
--
-- A child that a person has retried by itself is asked for again by the next beginning,
-- whether it goes on or has its result.
--
-- An at-most-once step of a branch with an unknown outcome keeps its failure.

local id, token, step = ARGV[1], ARGV[2], ARGV[4]
local shared = tonumber(ARGV[14])
local children, FIRST = shared > 0, 15 + shared
-- The number of arguments of a branch, and the field that has its text.
local EACH, FIELD = 3, 'item'
if children then EACH, FIELD = 5, 'event' end
local run = get(id, 'status', 'token', 'last_token', 'last_reply', 'created', 'bytes',
  'removed', 'branched', 'function', 'queue', 'event_id', 'event_name', 'root')

local function owed()
  local found = {}
  for i = FIRST, #ARGV, EACH do
    local branch = get(ARGV[i + 1], 'status', 'queued_at')
    if branch[1] == 'queued' then found[#found + 1] = {ARGV[i + 1], branch[2]} end
  end
  return found
end

if run[2] ~= token then
  if run[3] == token and run[4] == 'suspended 0 branches' then
    return {'suspended', owed()}
  end
  return refusal(run[1])
end

local now = clock()
local group, waiting = group_key(id, step), next_key(id, step)
local existing = redis.call('HGET', steps_key(id), step)
local order, total = nil, tonumber(ARGV[10])

local function resolved()
  redis.call('ZADD', tag .. ':leases', now + tonumber(ARGV[3]), id)
  return {'resolved', redis.call('HGET', steps_key(id), step)}
end

if existing then
  local was, _
  was, _, _, order = head(existing)
  if was == 'done' or was == 'failed' then return resolved() end
end

local known = redis.call('HMGET', group, 'by', 'filled', 'under', 'ended', 'limit')
local begins = known[1] ~= token
local offset, filled = tonumber(ARGV[9]), tonumber(known[2] or '0')
local under, ended = tonumber(known[3] or '0'), tonumber(known[4] or '0')
local most = tonumber(begins and ARGV[12] or known[5])
if begins then filled, under, ended = 0, 0, 0 end
if offset > filled then return {'lost'} end

local function has_result(place)
  local outcome = redis.call('HGET', group, '=' .. place)
  return outcome and string.sub(outcome, 1, 5) == 'done '
end

-- The limits, before anything is written.
local bytes = tonumber(run[6] or '0')
if offset == filled then
  local items = 0
  for i = FIRST, #ARGV, EACH do
    local found = get(ARGV[i + 1], 'status', 'result')
    if not found[1] then
      items = items + #ARGV[i + 2]
    elseif found[1] == 'completed' and found[2] and not has_result(ARGV[i]) then
      items = items + #found[2]
    end
  end
  if bytes + items > tonumber(ARGV[8]) then return {'full', 'bytes'} end
end
if begins then
  local memos = redis.call('HLEN', steps_key(id))
  if not known[1] and memos + tonumber(run[8] or '0') + total > tonumber(ARGV[7]) then
    return {'full', 'steps'}
  end
  order = order or text(memos + (run[7] or 0))
  local value = memo('waiting', token, 0, order, ARGV[5] .. ARGV[6])
  local full = excess(existing, memos, value, run[6], ARGV[7], ARGV[8])
  if full then return {'full', full} end
  write_memo(id, step, existing, value)
  existing = value
  put(id, 'children', '1', 'dispatches', '0', 'attempt', '0')
  redis.call('SADD', tag .. ':groups:' .. id, step)
  redis.call('UNLINK', waiting)
  redis.call('HSET', group, 'by', token, 'until', ARGV[11], 'limit', ARGV[12],
    'tolerate', ARGV[13], 'most', ARGV[8], 'memo', ARGV[5], 'failed', '0',
    'total', text(total), 'again', known[1] and '1' or '')
end

local function start(branch, from, created, place)
  if under < most then
    under = under + 1
    enqueue(branch, from, created, now)
    if children then start_clocks(branch, now) end
  else
    set_status(branch, from, 'suspended', created, 'reason', 'limit')
    redis.call('ZADD', waiting, place, branch)
  end
end

-- The fields that a child has of its function and its event.
local function describe(i)
  put(ARGV[i + 1], 'event_id', ARGV[i + 3], 'event_name', ARGV[i + 4],
    unpack(ARGV, 15, FIRST - 1))
end

local function create(i)
  local branch, item = ARGV[i + 1], ARGV[i + 2]
  put(branch, 'created', text(now), 'generation', '0', 'dispatches', '0', 'attempt', '0',
    'kind', children and 'child' or 'branch', 'parent', id, 'parent_step', step,
    'place', ARGV[i], FIELD, item)
  if children then
    describe(i)
    put(branch, 'parent_function', run[9], 'parent_queue', run[10])
    index(branch, get(branch, 'function')[1], now)
  else
    -- A worker of a release from before branches has no such function: it sets the run
    -- aside, where it would take it for a whole one. See common/ids.py.
    local marked = run[13] and run[9] or run[9] .. '[branch]'
    put(branch, 'function', marked, 'queue', run[10], 'event_id', run[11],
      'event_name', run[12], 'timeout', '0', 'root', run[13] or id)
  end
  redis.call('HINCRBY', run_key(id), 'bytes', #item)
  redis.call('HINCRBY', run_key(id), 'branched', 1)
  return text(now)
end

-- From its memos, as in run_admin.lua.
local function revive(i)
  local branch, item = ARGV[i + 1], ARGV[i + 2]
  local ran = get(branch, 'failed_step', 'reason', 'generation')
  if ran[1] and ran[1] ~= '' and ran[2] ~= 'outcome unknown' then
    remove_memo(branch, ran[1])
  end
  redis.call('HINCRBY', run_key(id), 'bytes',
    #item - redis.call('HSTRLEN', run_key(branch), FIELD))
  redis.call('HDEL', run_key(branch), 'failed_step', 'finished', 'reason', 'failure',
    'deferred_since')
  redis.call('ZREM', tag .. ':expire', branch)
  put(branch, 'generation', text(tonumber(ran[3]) + 1), 'dispatches', '0',
    'attempt', '0', FIELD, item)
  if children then
    describe(i)
    count_run(get(branch, 'function')[1], 'started', now)
  end
end

local decided = ''
if offset == filled then
  for i = FIRST, #ARGV, EACH do
    local place, branch = ARGV[i], ARGV[i + 1]
    local number = filled + (i - FIRST) / EACH
    if has_result(place) then
      ended, decided = ended + 1, place
    else
      local failure = redis.call('HGET', group, '=' .. place)
      if failure then
        redis.call('HDEL', group, '=' .. place)
        redis.call('HINCRBY', run_key(id), 'bytes', -#failure)
      end
      local found = get(branch, 'status', 'created', 'reason', 'result')
      local status, created = found[1] or '', found[2]
      if status == 'completed' and found[4] then
        local value = 'done ' .. found[4]
        redis.call('HSET', group, '=' .. place, value)
        redis.call('HINCRBY', run_key(id), 'bytes', #value)
        ended, decided = ended + 1, place
      else
        if status == '' then
          created = create(i)
        elseif terminal(status) then
          revive(i)
        end
        put(branch, 'by', token)
        redis.call('ZADD', tag .. ':children:' .. id, created, branch)
        redis.call('ZADD', tag .. ':unfinished:' .. id, created, branch)
        if status == '' or terminal(status)
            or status == 'suspended' and found[3] == 'limit' then
          start(branch, status, created, number)
        else
          under = under + 1
        end
      end
    end
  end
  filled = filled + (#ARGV - FIRST + 1) / EACH
  redis.call('HSET', group, 'filled', text(filled), 'under', text(under),
    'ended', text(ended))
  if ended >= tonumber(ARGV[11]) then
    close_group(id, step, existing, decided, nil, now)
    return resolved()
  end
end

if filled < total then
  redis.call('ZADD', tag .. ':leases', now + tonumber(ARGV[3]), id)
  return {'more', owed()}
end
redis.call('UNLINK', list_key(id, step))
-- Branches that the newest beginning did not ask for, as its list is shorter.
if redis.call('HGET', group, 'again') == '1' then leave_orphans(id, now) end
disown(id, 'suspended', now)
set_status(id, run[1], 'suspended', run[5], 'reason', 'branches', 'waiting', step,
  'dispatches', '0', 'attempt', '0', 'last_token', token,
  'last_reply', 'suspended 0 branches')
redis.call('ZREM', tag .. ':timers', 'wake:' .. id)
return {'suspended', owed()}
