#!lua flags=allow-oom
-- Mends runs and messages of one partition that lost their owner. Any number of workers
-- may call it at any time; no reader pops, so a caller that dies loses nothing. (G4, G10)
--
-- KEYS[1] tag
-- ARGV[1] lease, milliseconds; two looks are at least a third of it apart
-- ARGV[2] at most this many of each kind are handled in one call
-- ARGV[3] the number of queues that follow, which the caller saw empty since its last call
-- ARGV[4..] those queues, then the queues that it sends nothing to at the moment
--
-- Reply   {runs, events, timeouts, expiring, more, behind}
--         runs      {id, function, queue, queued_at} ... whose message is to be sent
--         events    {entry, message} ... to be sent
--         timeouts  "timeout:<id>", "start:<id>" or "due:<name> <event id>" ... whose
--                   time is over; "orphan:<id>" ... that its parent does not wait for
--                   any more
--         expiring  ids of finished runs; the caller removes their objects, then them
--         more      1 if a kind besides the outbox had more than ARGV[2]
--         behind    queues that are owed more
--
-- The clock of the server may be set back. Then a time that was to come soon seems to lie
-- further ahead than any time that is written now, and is taken for due. A sleep has no
-- such bound, and ends by the server's clock.

local lease, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
local now = clock()
local more = 0

-- The bounds: due, and beyond any time that is written now. Two workers may have leases
-- of their own; so a minute more than the longest that is known is not beyond.
local BEYOND = 60000
local function due(key, horizon)
  local found = redis.call('ZRANGEBYSCORE', key, '-inf', now, 'LIMIT', 0, limit)
  if horizon and #found < limit then
    local beyond = redis.call('ZRANGEBYSCORE', key, '(' .. text(now + horizon + BEYOND),
      '+inf',
      'LIMIT', 0, limit - #found)
    for _, member in ipairs(beyond) do found[#found + 1] = member end
  end
  if #found == limit then more = 1 end
  return found
end

local marks = tag .. ':marks'
local resting = {}
for i = 4, #ARGV do
  if i < 4 + tonumber(ARGV[3]) then
    redis.call('HSET', marks, 'empty:' .. ARGV[i], text(now))
  else
    resting[ARGV[i]] = true
  end
end

-- 1. Leases that ran out. The first look only puts the end off by a third of a lease and
-- notes it; the run is taken when that end has come and neither it nor the token has
-- changed. After a restart of the server, or a jump of its clock, every lease looks
-- expired at once: the time between the two looks lets the owners renew. Since each look
-- moves what it looked at behind the rest, any number is looked at a page at a time.
for _, id in ipairs(due(tag .. ':leases', longest_lease(lease))) do
  local run = get(id, 'status', 'token', 'created', 'claimed_at')
  if run[1] ~= 'running' then
    redis.call('ZREM', tag .. ':leases', id)
  else
    local ends = tonumber(redis.call('ZSCORE', tag .. ':leases', id))
    local look = redis.call('HGET', tag .. ':looks', id)
    local noted, ended
    if look then noted, ended = string.match(look, '^(%S+ %d+) (%d+)$') end
    local unchanged = noted == run[2] .. ' ' .. text(ends) and ends <= now
    -- A process that cannot renew its leases may say that it lives, for a while.
    local alive = tag .. ':alive:' .. (string.match(run[2], '^[^.]+') or '')
    if unchanged and redis.call('EXISTS', alive) == 0 then
      disown(id, 'lost', now)
      -- The process lived at least this long with it: it renewed the lease just before.
      put(id, 'lived', text(math.max(ended - lease * 2 / 3 - (run[4] or now), 0)))
      enqueue(id, run[1], run[3], now, now)
    else
      local later = math.ceil(now + lease / 3)
      redis.call('ZADD', tag .. ':leases', later, id)
      redis.call('HSET', tag .. ':looks', id,
        run[2] .. ' ' .. text(later) .. ' ' .. (unchanged and ended or text(ends)))
    end
  end
end

-- 2. Timers. A wake is carried out here, together with the memo of the wait that ends;
-- the end of a timeout is given to the caller, who reports it, and comes back until the
-- run is finished.
-- The time of an event, "due:<name> <id>", is given to the caller likewise.
local timeouts = {}

-- Children are named until none is left. Those of a run that has ended are orphans, all of
-- them. One that goes on may leave some of the branches of a step, which has 1,000 at
-- most, so as many are looked at. All runs share one page: the caller cancels one by one,
-- and leases are not to wait for that.
local LOOKED_AT = 1000
local room = limit
local function name_orphans(id)
  local timer, found = 'orphans:' .. id, 0
  local children = redis.call('ZRANGEBYSCORE', tag .. ':unfinished:' .. id, '-inf',
    '+inf', 'LIMIT', 0, LOOKED_AT)
  for _, child in ipairs(children) do
    if found == room then break end
    if orphaned(child) then
      timeouts[#timeouts + 1] = 'orphan:' .. child
      found = found + 1
    end
  end
  local full = found == room
  room = room - found
  if full then
    more = 1
    redis.call('ZADD', tag .. ':timers', now, timer)
  elseif found == 0 then
    redis.call('ZREM', tag .. ':timers', timer)
  else
    redis.call('ZADD', tag .. ':timers', now + RESEND, timer)
  end
end

-- Ends the wait of a SUSPENDED run: its memo becomes what it was to become, or fails with
-- another failure. A sleep that an older release began does not say what that is.
local function wake(id, failure)
  local run = get(id, 'status', 'created', 'waiting', 'becomes', 'children')
  if run[1] ~= 'suspended' then return end
  if run[3] then
    local existing = redis.call('HGET', steps_key(id), run[3])
    if existing and string.sub(existing, 1, 8) == 'waiting ' then
      local value = (run[4] or 'done') .. string.sub(existing, 8)
      if failure then
        value = string.match(value, '^[^\n]*\n%S* %S* %S* %S* ') .. failure
      end
      write_memo(id, run[3], existing, value)
    end
    redis.call('HDEL', run_key(id), 'waiting', 'becomes')
    unwatch(id)
    leave_line(id)
    if run[5] and has_unfinished(id) then name_orphans(id) end
  end
  enqueue(id, run[1], run[2], now, now)
end

for _, timer in ipairs(due(tag .. ':timers')) do
  local kind, id = string.match(timer, '^(%a+):(.+)$')
  if kind == 'wake' then
    redis.call('ZREM', tag .. ':timers', timer)
    wake(id)
  elseif kind == 'orphans' then
    name_orphans(id)
  else
    timeouts[#timeouts + 1] = timer
    redis.call('ZADD', tag .. ':timers', now + RESEND, timer)
  end
end

-- Waits whose run is over, or went on without being removed, leave the home of their
-- event's name some time after their end.
local ENDED = 3600000
local ended = redis.call('ZRANGEBYSCORE', tag .. ':waits', '-inf', now - ENDED, 'LIMIT', 0,
  limit)
for _, wait in ipairs(ended) do
  forget_wait(string.match(wait, '^(%S+) (.*)$'))
  redis.call('ZREM', tag .. ':waits', wait)
end

-- 3. Runs that wait for a child, see watch(). One whose child is gone goes on without it.
local GONE = '{"type":"RunNotFound","message":"the run is not there any more",'
  .. '"code":"run.not_found"}'

-- Hears of the children of a run that ended without telling it.
local function ask_children(id)
  local children = redis.call('ZRANGEBYSCORE', tag .. ':unfinished:' .. id, '-inf', '+inf',
    'LIMIT', 0, limit)
  for _, child in ipairs(children) do
    local run = get(child, 'status', 'result', 'failure', 'by')
    if not run[1] then
      redis.call('ZREM', tag .. ':unfinished:' .. id, child)
    elseif terminal(run[1]) then
      local outcome = {completed = run[2], failed = run[3]}
      tell_above(child, id, run[4], run[1], outcome[run[1]], now)
    end
  end
end

for _, entry in ipairs(due(tag .. ':parents')) do
  local kind, id = string.match(entry, '^(%a+):(.+)$')
  redis.call('ZREM', tag .. ':parents', entry)
  ask_children(id)
  local run = get(id, 'status', 'reason')
  if run[1] == 'suspended' and run[2] == 'child' then
    local first = redis.call('ZRANGEBYSCORE', tag .. ':unfinished:' .. id, '-inf', '+inf',
      'WITHSCORES', 'LIMIT', 0, 1)
    if kind == 'end' then
      wake(id)
    elseif first[1] then
      watch(id, now - tonumber(first[2]), now)
    else
      wake(id, GONE)
    end
  end
end

-- 4. QUEUED runs whose message may have vanished. It is sent again only if the queue was
-- seen empty since, or delivered something queued a minute later. Each look doubles the
-- time to the next one, up to an hour: a long backlog causes neither a storm of messages
-- nor one of looks.
for _, id in ipairs(due(tag .. ':queued', DOUBT * 2 ^ DOUBLINGS)) do
  local run = get(id, 'status', 'queue', 'queued_at', 'doubts')
  if run[1] ~= 'queued' then
    redis.call('ZREM', tag .. ':queued', id)
  else
    local seen = redis.call('HMGET', marks, 'empty:' .. run[2], 'delivered:' .. run[2])
    local queued = tonumber(run[3])
    if tonumber(seen[1] or '0') > queued + RESEND
        or tonumber(seen[2] or '0') > queued + DOUBT then
      owe(run[2], 'run:' .. id, now)
    end
    local doubts = math.min(tonumber(run[4] or '0') + 1, DOUBLINGS)
    put(id, 'doubts', text(doubts))
    redis.call('ZADD', tag .. ':queued', now + DOUBT * 2 ^ doubts, id)
  end
end

-- 5. Finished runs whose retention is over. Those with objects in the blob store are
-- marked, and named again a minute later in case their remover dies: a marked run can be
-- neither retried nor created again. A child's objects stay for as long as its parent,
-- whose memo refers to them. A run is kept until its children have ended. A branch without
-- a result is kept for as long as its parent: where that is retried, it goes on from its
-- memos, and a new one would execute its steps again.
local REMOVAL = 60000
local KEPT = 3600000
local expiring = {}

local function has_result(id)
  local branch = get(id, 'parent', 'parent_step', 'place')
  local outcome = redis.call('HGET', group_key(branch[1], branch[2]), '=' .. branch[3])
  return outcome and string.sub(outcome, 1, 5) == 'done '
end

for _, id in ipairs(due(tag .. ':expire')) do
  local run = get(id, 'status', 'function', 'blobs', 'parent', 'children', 'by')
  local needed = run[3] or run[6] and not has_result(id)
  if not terminal(run[1]) then
    redis.call('ZREM', tag .. ':expire', id)
  elseif run[5] and has_unfinished(id) then
    ask_children(id)
    redis.call('ZADD', tag .. ':expire', now + REMOVAL, id)
  elseif needed and run[4] and redis.call('EXISTS', run_key(run[4])) == 1 then
    redis.call('ZADD', tag .. ':expire', now + KEPT, id)
  elseif run[3] then
    put(id, 'expiring', '1')
    redis.call('ZADD', tag .. ':expire', now + REMOVAL, id)
    expiring[#expiring + 1] = id
  else
    remove(id, run[1], run[2])
  end
end

-- 6. The outbox: entries written with a state and not confirmed since. Each queue has its
-- share of the page; entries of a queue that rests stay where they are.
local QUEUES = 1000
local runs, events, behind = {}, {}, {}
local others = more

local function collect(queue, entry)
  local kind, id = string.match(entry, '^(%a+):(.+)$')
  if kind == 'run' then
    local run = get(id, 'status', 'function', 'queue', 'queued_at')
    if run[1] == 'queued' then
      runs[#runs + 1] = {id, run[2], run[3], run[4]}
      return true
    end
  else
    local message = redis.call('HGET', tag .. ':events', entry)
    if message then
      events[#events + 1] = {entry, message}
      return true
    end
  end
end

local owed = {}
limit = QUEUES
for _, queue in ipairs(due(tag .. ':outboxes', RESEND)) do
  if not resting[queue] then owed[#owed + 1] = queue end
end
limit = math.max(math.floor(tonumber(ARGV[2]) / math.max(#owed, 1)), 10)
for _, queue in ipairs(owed) do
  local key = outbox_key(queue)
  local entries = due(key, RESEND)
  for _, entry in ipairs(entries) do
    if collect(queue, entry) then
      redis.call('ZADD', key, now + RESEND, entry)
    else
      redis.call('ZREM', key, entry)
    end
  end
  if #entries == limit then
    behind[#behind + 1] = queue
  else
    local first = redis.call('ZRANGEBYSCORE', key, '-inf', '+inf', 'WITHSCORES',
      'LIMIT', 0, 1)
    if first[2] then
      redis.call('ZADD', tag .. ':outboxes', first[2], queue)
    else
      redis.call('ZREM', tag .. ':outboxes', queue)
    end
  end
end

return {runs, events, timeouts, expiring, others, behind}
