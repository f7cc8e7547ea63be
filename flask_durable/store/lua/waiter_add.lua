#!lua flags=allow-oom
-- Has a step wait for an event, unless an event that came before fits it. (G4)
--
-- KEYS[1] tag of the name's home
-- ARGV[1] name of the event
-- ARGV[2] run id
-- ARGV[3] step key
-- ARGV[4] path set: the paths that are compared, as JSON text; "" for any event
-- ARGV[5] digest of the values there; "" for any event
-- ARGV[6] when the run was created, milliseconds since 1970: earlier events do not count
-- ARGV[7] stamp up to which the caller has looked at events, "0" at first
-- ARGV[8] the end of the wait: milliseconds from now, or since 1970 with a leading "@"
-- ARGV[9] payload of the step's memo, opaque
-- ARGV[10] milliseconds that events are kept
-- ARGV[11] "1" if no function declares that the name is awaited, otherwise ""
--
-- Reply   {"waiting", end, known}  the wait is registered, by this call or before
--         {"events", next, known, {id, time, text} ...}
--                                  events that fit, the oldest first; nothing is
--                                  registered. next: ARGV[7] of the next call
--         {"unsorted", stamp, known}
--                                  the paths are new here: the caller looks by itself at
--                                  the events after ARGV[7] and up to this stamp
--         {"full"}                 the name has its 50 path sets
--         known: earlier events are not known here, milliseconds since 1970
--
-- It looks and registers at once: see event_deliver for the race that this closes. The
-- caller takes the events one after the other (run_wake), and calls again if it could use
-- none. So the oldest event wins, and a wait is registered only once all are used.
--
-- A repeat finds the wait and changes nothing; its end is that of the first call. A wait
-- for other values is not a repeat: another release asks for them, and its wait takes the
-- place of the earlier one. Neither is one from before the run was created: an id may come
-- again.
-- Bound: 10 events a call.

-- Path sets that a name may have, and events that one call returns.
local MAX_PATHS = 50
local PAGE = 10

local name, id, step, paths, digest = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local created, after, look_back = tonumber(ARGV[6]), ARGV[7], tonumber(ARGV[10])
local member = id .. ' ' .. step
local kept = kept_key(name)
local now = clock()

redis.call('HSETNX', kept, 'since', ARGV[11] == '1' and text(now) or '0')
keep(kept, look_back)
local marks = redis.call('HMGET', kept, 'cut_at', 'since')
local known = text(math.max(time_of(marks[1] or '0'), tonumber(marks[2]), now - look_back))

local wait = redis.call('HGET', waits_key(name), member)
if wait then
  local stamp, ends, was = string.match(wait, '^(%d+) (%d+) (%S*)\n')
  if was == digest and time_of(stamp) >= created then return {'waiting', ends, known} end
  forget_wait(name, member)
end

local ends = ARGV[8]
ends = string.match(ends, '^@(%d+)') or text(now + tonumber(ends))

if paths ~= '' then
  local set = redis.call('HGET', paths_key(name), paths)
  local first, last
  if set then
    first, last = string.match(set, '^(%d+) (%d+)$')
  else
    if redis.call('HLEN', paths_key(name)) >= MAX_PATHS then return {'full'} end
    first, last = text(next_stamp(name)), '0'
  end
  local needed = tonumber(ends) + look_back
  if needed > tonumber(last) then
    redis.call('HSET', paths_key(name), paths, first .. ' ' .. text(needed))
    keep(paths_key(name), needed - now)
  end
  if time_of(first) >= created and tonumber(after) < tonumber(first) then
    return {'unsorted', first, known}
  end
end

local from = '(' .. after
if tonumber(after) < created * 1000 then from = text(created * 1000) end
local found = redis.call('ZRANGEBYSCORE', recent_key(name, digest), from, '+inf',
  'WITHSCORES', 'LIMIT', 0, PAGE)
if #found > 0 then
  local reply = {'events', found[#found], known}
  for i = 1, #found, 2 do
    local entry = redis.call('HGET', recent_key(name), found[i])
    if entry then
      reply[#reply + 1] = {found[i], text(time_of(found[i + 1])),
        string.match(entry, '^[^\n]*\n(.*)$')}
    end
  end
  return reply
end

local stamp = text(next_stamp(name))
redis.call('HSET', waits_key(name), member,
  stamp .. ' ' .. ends .. ' ' .. digest .. '\n' .. ARGV[9])
redis.call('ZADD', waiters_key(name, digest), stamp, member)
redis.call('ZADD', tag .. ':waits', ends, name .. ' ' .. member)
return {'waiting', ends, known}
