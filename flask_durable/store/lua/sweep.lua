#!lua flags=allow-oom
-- Mends what lost its owner in one partition. Any number of workers may call it at any
-- time; nothing is popped by a reader, so a caller that dies loses nothing. (G4)
--
-- KEYS[1] tag
-- ARGV[1] lease, milliseconds; two looks are at least a third of it apart
-- ARGV[2] at most this many of each kind are handled in one call (of leases: ten times)
-- ARGV[3..] queues that the caller saw empty since it last called
--
-- Reply   {runs, events, timeouts, expired, more}
--         runs      {id, function, queue, queued_at} ... whose message is to be sent
--         events    {entry, message} ... to be sent
--         timeouts  "timeout:<id>" or "start:<id>" ... whose time is over
--         expired   ids of finished runs whose retention is over
--         more      1 if a kind had more than ARGV[2]

local lease, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
local now = clock()
local more = 0

local function due(name)
  local found = redis.call('ZRANGEBYSCORE', tag .. name, '-inf', now, 'LIMIT', 0, limit)
  if #found == limit then more = 1 end
  return found
end

for i = 3, #ARGV do
  redis.call('HSET', tag .. ':marks', 'empty:' .. ARGV[i], text(now))
end

-- 1. Leases that ran out. The first look is only noted; the second takes the run, if in
-- between the token did not change and the lease was not renewed. After a restart of
-- the server, or a jump of its clock, every lease looks expired at once: the two looks
-- give the owners time to renew.
local overdue = redis.call('ZRANGEBYSCORE', tag .. ':leases', '-inf', now, 'LIMIT', 0,
  limit * 10)
for _, id in ipairs(overdue) do
  local run = get(id, 'status', 'token', 'created', 'claimed_at')
  if run[1] ~= 'running' then
    redis.call('ZREM', tag .. ':leases', id)
  else
    local ends = redis.call('ZSCORE', tag .. ':leases', id)
    local seen = run[2] .. ' ' .. ends
    local look = redis.call('HGET', tag .. ':looks', id)
    local token_and_end, first
    if look then token_and_end, first = string.match(look, '^(%S+ %S+) (%d+)$') end
    if token_and_end == seen then
      -- A process that cannot renew its leases may say that it lives, for a while.
      local alive = tag .. ':alive:' .. (string.match(run[2], '^[^.]+') or '')
      if now - tonumber(first) >= lease / 3 and redis.call('EXISTS', alive) == 0 then
        disown(id, 'lost', now)
        -- How long its process lived with it: it renewed the lease a moment before.
        put(id, 'lived', text(math.max(ends - lease * 2 / 3 - (run[4] or now), 0)))
        enqueue(id, run[1], run[3], now)
        redis.call('ZADD', tag .. ':outbox', now, 'run:' .. id)
      end
    else
      redis.call('HSET', tag .. ':looks', id, seen .. ' ' .. text(now))
    end
  end
end

-- 2. Timers. A wake is carried out here, together with the memo of the sleep that ends;
-- the end of a timeout is handed to the caller, who knows whom to tell, and comes back
-- until the run is finished.
local timeouts = {}
for _, timer in ipairs(due(':timers')) do
  local kind, id = string.match(timer, '^(%a+):(.+)$')
  if kind == 'wake' then
    redis.call('ZREM', tag .. ':timers', timer)
    local run = get(id, 'status', 'created', 'waiting')
    if run[1] == 'suspended' then
      if run[3] then
        local existing = redis.call('HGET', steps_key(id), run[3])
        if existing and string.sub(existing, 1, 8) == 'waiting ' then
          write_memo(id, run[3], existing, 'done' .. string.sub(existing, 8))
        end
        redis.call('HDEL', run_key(id), 'waiting')
      end
      enqueue(id, run[1], run[2], now)
      redis.call('ZADD', tag .. ':outbox', now, 'run:' .. id)
    end
  else
    timeouts[#timeouts + 1] = timer
    redis.call('ZADD', tag .. ':timers', now + RESEND, timer)
  end
end

-- 3. QUEUED runs whose message may have vanished. It is sent again only if the queue was
-- seen empty since, or delivered something queued a minute later; and each time the
-- doubt takes twice as long to come back. So a long backlog causes no storm.
for _, id in ipairs(due(':queued')) do
  local run = get(id, 'status', 'queue', 'queued_at', 'resends')
  if run[1] ~= 'queued' then
    redis.call('ZREM', tag .. ':queued', id)
  else
    local marks = redis.call('HMGET', tag .. ':marks', 'empty:' .. run[2],
      'delivered:' .. run[2])
    local queued = tonumber(run[3])
    local resends = tonumber(run[4] or '0')
    if tonumber(marks[1] or '0') > queued + RESEND
        or tonumber(marks[2] or '0') > queued + DOUBT then
      resends = resends + 1
      put(id, 'resends', text(resends))
      redis.call('ZADD', tag .. ':outbox', now, 'run:' .. id)
    end
    redis.call('ZADD', tag .. ':queued', now + DOUBT * 2 ^ math.min(resends, 10), id)
  end
end

-- 4. The outbox: what was written with a state and not confirmed since.
local runs, events = {}, {}
for _, entry in ipairs(due(':outbox')) do
  redis.call('ZADD', tag .. ':outbox', now + RESEND, entry)
  local kind, id = string.match(entry, '^(%a+):(.+)$')
  if kind == 'run' then
    local run = get(id, 'status', 'function', 'queue', 'queued_at')
    if run[1] == 'queued' then
      runs[#runs + 1] = {id, run[2], run[3], run[4]}
    else
      redis.call('ZREM', tag .. ':outbox', entry)
    end
  else
    local message = redis.call('HGET', tag .. ':outbox:events', entry)
    if message then
      events[#events + 1] = {entry, message}
    else
      redis.call('ZREM', tag .. ':outbox', entry)
    end
  end
end

return {runs, events, timeouts, due(':expire'), more}
