-- Takes an event into the home of its name, and tells which waits it fits. (G1, G4)
--
-- KEYS[1] tag of the name's home
-- ARGV[1] name of the event
-- ARGV[2] its id
-- ARGV[3] its text, opaque
-- ARGV[4] the time before which it does not count, milliseconds since 1970; 0 for none
-- ARGV[5] "1" where a sweep found that this time has come, otherwise ""
-- ARGV[6] milliseconds that events are kept
-- ARGV[7] bytes that are kept of the name's events
-- ARGV[8] stamp that the waits come after, "0" for all
-- ARGV[9] stamp that the waits do not go beyond, "" for the newest
-- ARGV[10] the number of path sets that follow
-- ARGV[11..] the path sets that the caller computed digests of, then those digests
--
-- Reply   {"later"}                it is kept until its time has come
--         {"paths", path set ...}  waits compare paths that the caller did not name;
--                                  nothing was changed
--         {"waits", time, next, limit, {run, step, stamp, end, payload} ...}
--                                  time: when the event was seen first; next: ARGV[8]
--                                  and limit: ARGV[9] of the call for more, or ""
--
-- A wait looks for events and registers in one script (waiter_add), and an event is kept
-- and looks for waits in this one. So whichever comes first, the other finds it. A wait
-- that is registered with new paths while the caller computes is noticed here, too.
--
-- The first call fixes when the event was seen, and a repeat finds it: so an event that
-- is delivered again does not count as a later one. The stamps of waits only grow, so the
-- pages of a name that waits leave and join are complete and end at the limit.
-- Bounds: 50 path sets, 500 waits a call, 100 events that are removed.

-- Waits that are returned by one call.
local PAGE = 500

local name, id = ARGV[1], ARGV[2]
local due, look_back = tonumber(ARGV[4]), tonumber(ARGV[6])
local after, limit, count = ARGV[8], ARGV[9], tonumber(ARGV[10])
local now = clock()

if due > now and ARGV[5] == '' then
  local coming = name .. ' ' .. id
  if redis.call('HSETNX', tag .. ':coming', coming, ARGV[3]) == 1 then
    redis.call('ZADD', tag .. ':timers', due, 'due:' .. coming)
  end
  return {'later'}
end

local given = {}
for i = 11, 10 + count do given[ARGV[i]] = true end
local sets = redis.call('HGETALL', paths_key(name))
local missing, reply = false, {'paths'}
for i = 1, #sets, 2 do
  if tonumber(string.match(sets[i + 1], '%d+$')) < now then
    redis.call('HDEL', paths_key(name), sets[i])
  else
    reply[#reply + 1] = sets[i]
    missing = missing or not given[sets[i]]
  end
end
if missing then return reply end

local recent, kept = recent_key(name), kept_key(name)
local entry = redis.call('HGET', recent, id)
local stamp = entry and string.match(entry, '^%d+')
if not stamp then
  if redis.call('EXISTS', recent) == 0 then redis.call('HSET', kept, 'bytes', '0') end
  stamp = text(next_stamp(name))
  local digests = {}
  for i = 11 + count, #ARGV do
    digests[#digests + 1] = ARGV[i]
    redis.call('ZADD', recent_key(name, ARGV[i]), stamp, id)
    keep(recent_key(name, ARGV[i]), look_back)
  end
  entry = stamp .. ' ' .. table.concat(digests, ',') .. '\n' .. ARGV[3]
  redis.call('HSET', recent, id, entry)
  redis.call('ZADD', recent_key(name, ''), stamp, id)
  redis.call('HINCRBY', kept, 'bytes', #entry)
  redis.call('HSETNX', kept, 'since', '0')
  for _, key in ipairs({recent, recent_key(name, ''), kept}) do keep(key, look_back) end
  prune(name, now, look_back, tonumber(ARGV[7]))
end

if limit == '' then limit = redis.call('HGET', kept, 'last') or stamp end
local found = {}
local function look(digest)
  local members = redis.call('ZRANGEBYSCORE', waiters_key(name, digest), '(' .. after, limit,
    'WITHSCORES', 'LIMIT', 0, PAGE)
  for i = 1, #members, 2 do
    found[#found + 1] = {tonumber(members[i + 1]), members[i]}
  end
end
look('')
for i = 11 + count, #ARGV do look(ARGV[i]) end
table.sort(found, function(a, b) return a[1] < b[1] end)

local waits = {'waits', text(time_of(stamp)), '', limit}
for i = 1, math.min(#found, PAGE) do
  local wait = redis.call('HGET', waits_key(name), found[i][2])
  if wait then
    local run, step = string.match(found[i][2], '^(%S+) (.*)$')
    local was, ends, payload = string.match(wait, '^(%d+) (%d+) %S*\n(.*)$')
    waits[#waits + 1] = {run, step, was, ends, payload}
  end
end
if #found >= PAGE then waits[3] = text(found[PAGE][1]) end
return waits
