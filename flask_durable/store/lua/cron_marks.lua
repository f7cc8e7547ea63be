#!lua flags=allow-oom
-- Notes up to when the instants of schedules have runs, and says what is noted. (G1, G4)
--
-- KEYS[1] tag of partition 0
-- ARGV[1] milliseconds after which a schedule that no caller looked at is forgotten
-- ARGV[2] the version of the directory that the caller read the schedules in
-- ARGV[3..] schedule, a time up to which each of its instants has a run, or 0, ...
--
-- Reply   {now, mark, ...}   a mark for each schedule: what lies between it and now is
--         to be done
--         {now}              the directory is another one by now; nothing was changed
--
-- The runs are created first, and the mark is moved then: a crash in between leaves
-- instants that are found again and lead to runs that exist. A mark never goes back
-- because of a caller's argument, so of two workers the slower one repeats nothing. A
-- mark that lies ahead of the clock, which must have been set back, would silence the
-- schedule until then: it is set to now. A new schedule begins now: instants from before
-- it was known are not made up.
--
-- A caller that read the directory before a schedule was taken out of it would write
-- the mark that functions_publish had forgotten: the schedule, once it came back, would
-- make up instants of the time that it was not in force. So it is asked to read again.

local now = clock()
local key = tag .. ':schedules'
if ARGV[2] ~= (redis.call('GET', tag .. ':functions:version') or '0') then
  return {text(now)}
end
redis.call('ZREMRANGEBYSCORE', key, '-inf', now - tonumber(ARGV[1]))
local reply = {text(now)}
for i = 3, #ARGV, 2 do
  local mark = tonumber(redis.call('ZSCORE', key, ARGV[i]) or now)
  mark = math.min(math.max(mark, tonumber(ARGV[i + 1])), now)
  redis.call('ZADD', key, mark, ARGV[i])
  reply[#reply + 1] = text(mark)
end
return reply
