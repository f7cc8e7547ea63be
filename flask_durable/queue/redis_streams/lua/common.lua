-- The functions that the scripts of this folder share; put before each of them. Scripts
-- that finish or hand back accepted messages already carry the flag allow-oom.
--
-- A stream entry has the field "body". Once it was handed back it also has "receives" (the
-- receives of its earlier entries) and "sent" (the time when it was sent first). Bodies are
-- opaque bytes. A receipt is (entry id, delivery count, consumer).

local GROUP = 'workers'

local function clock()
  local now = redis.call('TIME')
  return now[1] * 1000 + math.floor(now[2] / 1000)
end

-- True if a receipt is the latest one of its message. A flushed server has no group.
local function held(stream, id, count, consumer)
  local rows = redis.pcall('XPENDING', stream, GROUP, id, id, 1, consumer)
  return not rows.err and rows[1] ~= nil and rows[1][4] == tonumber(count)
end

-- True if a message left the stream: an earlier call with its receipt did the work.
local function gone(stream, id)
  return #redis.call('XRANGE', stream, id, id) == 0
end

local function fields(id, values)
  local found = {}
  for i = 1, #values, 2 do found[values[i]] = values[i + 1] end
  return {
    body = found.body or '',
    receives = tonumber(found.receives) or 0,
    sent = tonumber(found.sent) or tonumber(string.match(id, '^%d+')),
    token = found.token,
  }
end

local function remove(stream, id)
  redis.call('XACK', stream, GROUP, id)
  redis.call('XDEL', stream, id)
end

-- Calls act(id, count) for each receipt from ARGV[first] on that is the latest one.
-- Replies 1 where it was, 1 as well where a repeat finds the message gone, otherwise 0.
local function each_held(stream, first, act)
  local replies = {}
  for i = first, #ARGV, 3 do
    local id, count = ARGV[i], ARGV[i + 1]
    local reply = 1
    if held(stream, id, count, ARGV[i + 2]) then
      act(id, tonumber(count))
    elseif not gone(stream, id) then
      reply = 0
    end
    replies[#replies + 1] = reply
  end
  return replies
end
