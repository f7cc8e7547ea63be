#!lua flags=allow-oom
-- Puts a message that was not received from the queue into its dead letters. (G1)
--
-- KEYS[1] dead-letter stream
-- ARGV[1] a token made by the sender
-- ARGV[2] milliseconds that dead letters are kept
-- ARGV[3] reason
-- ARGV[4] how often the message was tried
-- ARGV[5] body
--
-- Reply   the entry's id, also of an earlier call
--
-- The client repeats a call whose reply was lost at once, so its entry is among the
-- newest ones, where the token is looked for.

local dead = KEYS[1]
for _, entry in ipairs(redis.call('XREVRANGE', dead, '+', '-', 'COUNT', 100)) do
  if fields(entry[1], entry[2]).token == ARGV[1] then return entry[1] end
end
local now = clock()
local oldest = now - tonumber(ARGV[2])
return redis.call('XADD', dead, 'MINID', '~', string.format('%.0f', oldest), '*',
  'body', ARGV[5], 'reason', ARGV[3], 'receives', ARGV[4],
  'sent', string.format('%.0f', now), 'token', ARGV[1])
