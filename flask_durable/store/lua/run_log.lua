-- Keeps the newest log lines of a run. (G10)
--
-- KEYS[1] tag
-- ARGV[1] run id
-- ARGV[2] token, unique for these lines
-- ARGV[3] the number of lines that are kept
-- ARGV[4] the bytes of them that are kept
-- ARGV[5..] lines, opaque
--
-- Reply   1 if they are kept, 0 if there is no such run
--
-- Any process that ran the run may add lines, also after its end and after losing it:
-- they tell what happened. They are numbered here, so that two writers have no number
-- twice. A repeat finds its token. The script that writes also checks that the run is
-- there: otherwise a line that comes after run_expire would stay for ever. The list that
-- is read is the one that this script cuts, so it is short.

local id, token = ARGV[1], ARGV[2]
if redis.call('EXISTS', run_key(id)) == 0 then return 0 end

local key = tag .. ':log:' .. id
local kept = redis.call('LRANGE', key, 0, -1)
for _, entry in ipairs(kept) do
  if string.match(entry, '^%d+ (%S+) ') == token then return 1 end
end
local number = 0
if #kept > 0 then number = tonumber(string.match(kept[#kept], '^%d+')) end
for i = 5, #ARGV do
  number = number + 1
  kept[#kept + 1] = text(number) .. ' ' .. token .. ' ' .. ARGV[i]
  redis.call('RPUSH', key, kept[#kept])
end

local lines, bytes = 0, 0
for i = #kept, 1, -1 do
  bytes = bytes + #kept[i]
  if lines == tonumber(ARGV[3]) or bytes > tonumber(ARGV[4]) then break end
  lines = lines + 1
end
redis.call('LTRIM', key, #kept - lines, -1)
return 1
