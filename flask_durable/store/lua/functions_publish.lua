#!lua flags=allow-oom
-- Publishes the functions of a process, for routers whose code does not have them. (G1)
--
-- KEYS[1] tag of partition 0
-- ARGV[1] milliseconds after which a function that no process has is forgotten
-- ARGV[2] milliseconds after which a version that no process has is forgotten, where
--         another version of its function is alive
-- ARGV[3..] "<function id> <version>", description, ...
--
-- Reply   the version of the directory
--
-- <tag>:functions        hash  "<function id> <version>" -> description
-- <tag>:functions:seen   zset  the same by the time that a process last had it
-- <tag>:functions:first  zset  the same by the time that it was first published
--
-- A version is a digest of its description, so two releases never write one field: the
-- process that starts last cannot hide the versions of others. Of several versions the
-- newest is the one that came to life last, by this server's clock; a process that
-- restarts while others have its version changes nothing. A rolled-back version is the
-- newest again: it was forgotten, or will be when the newer ones are gone.
--
-- The version of the directory changes with every change. A router sends a read of it
-- behind the runs it creates and before it gives up the event: if it matched against its
-- memory alone, an event could pass by a function that was published a moment ago.
--
-- Where the newest version of a function changes, the marks of schedules that it does
-- not have are forgotten: a schedule that comes back begins then, and makes up no
-- instants of a time when another one was in force. cron_marks writes no mark for a
-- caller that read the directory before that.

local now = clock()
local functions, seen = tag .. ':functions', tag .. ':functions:seen'
local first = tag .. ':functions:first'

-- Ids of functions whose versions changed, and descriptions that were forgotten.
local changed, gone = {}, {}

for i = 3, #ARGV, 2 do
  if redis.call('HSETNX', functions, ARGV[i], ARGV[i + 1]) == 1 then
    redis.call('ZADD', first, now, ARGV[i])
    changed[id_of(ARGV[i])] = true
  end
  redis.call('ZADD', seen, now, ARGV[i])
end

local silent = redis.call('ZRANGEBYSCORE', seen, '-inf', now - tonumber(ARGV[2]),
  'WITHSCORES', 'LIMIT', 0, VERSIONS)
if #silent > 0 then
  local alive = {}
  local heard = redis.call('ZRANGEBYSCORE', seen, '(' .. text(now - tonumber(ARGV[2])),
    '+inf', 'LIMIT', 0, VERSIONS)
  for _, name in ipairs(heard) do alive[id_of(name)] = true end
  for i = 1, #silent, 2 do
    local name, id = silent[i], id_of(silent[i])
    if alive[id] or tonumber(silent[i + 1]) <= now - tonumber(ARGV[1]) then
      gone[#gone + 1] = {id, redis.call('HGET', functions, name)}
      redis.call('HDEL', functions, name)
      redis.call('ZREM', seen, name)
      redis.call('ZREM', first, name)
      changed[id] = true
    end
  end
end

local version = tonumber(redis.call('GET', functions .. ':version') or '0')
if not next(changed) then return version end

-- Of the functions that changed: the newest description, and the others.
local newest, others = {}, gone
local by_age = redis.call('ZRANGEBYSCORE', first, '-inf', '+inf', 'LIMIT', 0, VERSIONS)
for _, name in ipairs(by_age) do
  local id = id_of(name)
  if changed[id] then
    others[#others + 1] = newest[id] and {id, newest[id]}
    newest[id] = redis.call('HGET', functions, name)
  end
end
local kept = {}
for id, description in pairs(newest) do
  for _, mark in ipairs(schedules_of(id, description)) do kept[mark] = true end
end
for _, other in ipairs(others) do
  -- A function that no process has keeps its marks: its workers may be down for a while.
  if newest[other[1]] then
    for _, mark in ipairs(schedules_of(other[1], other[2])) do
      if not kept[mark] then redis.call('ZREM', tag .. ':schedules', mark) end
    end
  end
end

-- The time, not the next number: after a failover that lost the latest change, the next
-- change must not get its number.
version = math.max(now, version + 1)
redis.call('SET', functions .. ':version', text(version))
return version
