#!lua flags=allow-oom
-- Removes a finished run whose objects are gone from the blob store. (G10)
--
-- KEYS[1] tag
-- ARGV[1] run id
--
-- Reply   1 if it is gone, by this call or before; 0 if it stays
--
-- A sweep marked it before its objects were removed. From then on it can be neither
-- retried nor created again: otherwise objects of a living run could be removed. A run
-- without the mark is left alone.

local id = ARGV[1]
local run = get(id, 'status', 'function', 'expiring')
if not run[1] then
  redis.call('ZREM', tag .. ':expire', id)
  return 1
end
if not run[3] then return 0 end
remove(id, run[1], run[2])
return 1
