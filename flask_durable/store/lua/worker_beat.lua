#!lua flags=allow-oom
-- Notes that a worker process is alive, and forgets those that are gone. (G4, G10)
--
-- KEYS[1] tag of partition 0
-- ARGV[1] worker
-- ARGV[2] description, opaque
-- ARGV[3] seconds after which a silent worker is forgotten
-- ARGV[4..] versions of functions that it has the code of
--
-- Reply   1
--
-- It may write beyond the memory limit: one field a worker. A worker that could not
-- publish that it is there would stop receiving, and accepted events would stand still.

local now = clock()
local seconds = math.floor(now / 1000)
local workers, seen = tag .. ':workers', tag .. ':workers:seen'
redis.call('HSET', workers, ARGV[1], ARGV[2])
redis.call('ZADD', seen, seconds, ARGV[1])
for i = 4, #ARGV do
  redis.call('ZADD', tag .. ':functions:seen', 'XX', now, ARGV[i])
end
local gone = redis.call('ZRANGEBYSCORE', seen, '-inf', seconds - tonumber(ARGV[3]),
  'LIMIT', 0, 100)
if #gone > 0 then
  redis.call('ZREM', seen, unpack(gone))
  redis.call('HDEL', workers, unpack(gone))
end
return 1
