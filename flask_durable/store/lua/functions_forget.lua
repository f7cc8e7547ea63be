#!lua flags=allow-oom
-- Forgets a function that no process has any more: its events start no runs. (G1)
--
-- KEYS[1] tag of partition 0
-- ARGV[1] function id
-- ARGV[2] milliseconds within which a process said that it has it, if one is alive
--
-- Reply   {"alive"}  a process has it, and would publish it again; nothing was changed
--         {"gone"}   nothing is known of it now, as perhaps before
--
-- Its schedules begin from scratch if it comes back. A repeat finds it gone.

local functions = tag .. ':functions'
local now = clock()
local names = {}
local seen = redis.call('ZRANGEBYSCORE', functions .. ':seen', '-inf', '+inf',
  'WITHSCORES', 'LIMIT', 0, VERSIONS)
for i = 1, #seen, 2 do
  if id_of(seen[i]) == ARGV[1] then
    if tonumber(seen[i + 1]) > now - tonumber(ARGV[2]) then return {'alive'} end
    names[#names + 1] = seen[i]
  end
end

for _, name in ipairs(names) do
  local description = redis.call('HGET', functions, name)
  for _, mark in ipairs(schedules_of(ARGV[1], description)) do
    redis.call('ZREM', tag .. ':schedules', mark)
  end
  redis.call('HDEL', functions, name)
  redis.call('ZREM', functions .. ':seen', name)
  redis.call('ZREM', functions .. ':first', name)
end
if #names > 0 then
  local version = tonumber(redis.call('GET', functions .. ':version') or '0')
  redis.call('SET', functions .. ':version', text(math.max(now, version + 1)))
end
return {'gone'}
