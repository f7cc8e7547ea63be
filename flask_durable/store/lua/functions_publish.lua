#!lua flags=allow-oom
-- Publishes what a process can run, for routers whose code does not have it. (G1)
--
-- KEYS[1] tag of partition 0
-- ARGV[1] milliseconds after which a function that nobody published is forgotten
-- ARGV[2..] function id, description, ...
--
-- Reply   the version of the directory
--
-- The version changes with every change. A router sends a read of it behind the runs it
-- creates and before it gives up the event: were it to match against what it remembers
-- alone, an event could pass by a function that was published a moment ago.

local now = clock()
local changed = false
for i = 2, #ARGV, 2 do
  if redis.call('HGET', tag .. ':functions', ARGV[i]) ~= ARGV[i + 1] then
    redis.call('HSET', tag .. ':functions', ARGV[i], ARGV[i + 1])
    changed = true
  end
  redis.call('ZADD', tag .. ':functions:seen', now, ARGV[i])
end
local stale = redis.call('ZRANGEBYSCORE', tag .. ':functions:seen', '-inf',
  now - tonumber(ARGV[1]), 'LIMIT', 0, 100)
for _, id in ipairs(stale) do
  redis.call('HDEL', tag .. ':functions', id)
  redis.call('ZREM', tag .. ':functions:seen', id)
  changed = true
end
local version = tonumber(redis.call('GET', tag .. ':functions:version') or '0')
if changed then
  -- The time, not the next number: after a failover that lost the latest change, the
  -- next change must not get its number.
  version = math.max(now, version + 1)
  redis.call('SET', tag .. ':functions:version', text(version))
end
return version
