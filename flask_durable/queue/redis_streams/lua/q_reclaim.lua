#!lua flags=allow-oom
-- Receives messages whose visibility ran out with another consumer. (G4)
--
-- KEYS[1] stream
-- ARGV[1] consumer
-- ARGV[2] visibility timeout in milliseconds
-- ARGV[3] cursor: where the last call stopped looking
-- ARGV[4] how many at most, up to 100
--
-- Reply   {cursor, {entry id, delivery count, body, earlier receives, sent}, ...}
--
-- Idle times count through a server's downtime. So nothing is taken before the server
-- has been up for a visibility timeout: until then the holders can extend again. A
-- repeated call takes nothing twice; what its lost reply named comes back once more.
--
-- A server whose clock was set back counts from times that are still to come: its uptime
-- may be negative, and what was received before is not idle until the clock has caught
-- up. XPENDING shows such an entry as idle for 0 ms. It is dated now, for its consumer:
-- a visibility timeout later it is taken. An entry that was received or extended in this
-- millisecond stays as it is by that. Only the 100 oldest are looked at.

local stream, consumer, cursor = KEYS[1], ARGV[1], ARGV[3]
local info = redis.call('INFO', 'server')
local uptime = tonumber(string.match(info, 'uptime_in_seconds:(-?%d+)')) or 0
if uptime >= 0 and uptime * 1000 < tonumber(ARGV[2]) then return {cursor} end

local taken = {}
local rounds = 0
repeat
  local reply = redis.call(
    'XAUTOCLAIM', stream, GROUP, consumer, ARGV[2], cursor, 'COUNT', ARGV[4])
  cursor, taken, rounds = reply[1], reply[2], rounds + 1
until #taken > 0 or cursor == '0-0' or rounds == 10

if #taken == 0 then
  for _, row in ipairs(redis.call('XPENDING', stream, GROUP, '-', '+', 100)) do
    if row[3] == 0 then
      redis.call('XCLAIM', stream, GROUP, row[2], 0, row[1], 'JUSTID')
    end
  end
end

local reply = {cursor}
for _, entry in ipairs(taken) do
  local id = entry[1]
  local row = redis.call('XPENDING', stream, GROUP, id, id, 1, consumer)[1]
  local message = fields(id, entry[2])
  reply[#reply + 1] = {id, row[4], message.body, message.receives, message.sent}
end
return reply
