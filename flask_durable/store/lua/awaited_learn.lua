-- Notes that a step waits for events of a name, until it has ended. (G1)
--
-- KEYS[1] tag of partition 0
-- ARGV[1] name of the event
-- ARGV[2] until when its events are to be kept, milliseconds since 1970
--
-- Reply   {"learned"} | {"full"}: 10,000 names are known
--
-- A name that functions declare is noted too: their next release may declare it no more,
-- and the wait still gets its event. The names are a part of the directory: a new one
-- changes its version, so a router that does not know of it yet notices before it gives
-- up an event. A repeat finds the name.
-- Bound: 100 names that are forgotten.

local MAX_NAMES = 10000

local now = clock()
local awaited = tag .. ':functions:awaited'
local old = redis.call('ZRANGEBYSCORE', awaited, '-inf', now, 'LIMIT', 0, PRUNED)
if #old > 0 then redis.call('ZREM', awaited, unpack(old)) end
local known = redis.call('ZSCORE', awaited, ARGV[1])
if not known and redis.call('ZCARD', awaited) >= MAX_NAMES then return {'full'} end
redis.call('ZADD', awaited, 'GT', ARGV[2], ARGV[1])
if known then return {'learned'} end
local version = tonumber(redis.call('GET', tag .. ':functions:version') or '0')
redis.call('SET', tag .. ':functions:version', text(math.max(now, version + 1)))
return {'learned'}
