#!lua flags=allow-oom
-- Makes the group of a queue, although the server's memory is full. (G4)
--
-- KEYS[1] stream
--
-- Reply   1
--
-- XGROUP is refused there also where the group exists, and a worker that starts then
-- could not receive what was accepted.

local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], GROUP, '0', 'MKSTREAM')
if made.err and not string.find(made.err, 'BUSYGROUP', 1, true) then return made end
return 1
