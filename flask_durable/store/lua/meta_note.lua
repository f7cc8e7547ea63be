#!lua flags=allow-oom
-- Notes an attribute of a namespace, unless it was noted before. (G1, G4)
--
-- KEYS[1] tag of partition 0
-- ARGV[1] field: "app", "partitions" or "installation"
-- ARGV[2] value
--
-- Reply   the value that is there
--
-- <tag>:meta  hash  these fields
--
-- It may write beyond the memory limit, where HSETNX is refused although it has nothing
-- to write: a process that starts then could not go on with what was accepted.

local meta = tag .. ':meta'
redis.call('HSETNX', meta, ARGV[1], ARGV[2])
return redis.call('HGET', meta, ARGV[1])
