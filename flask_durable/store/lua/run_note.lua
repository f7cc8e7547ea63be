#!lua flags=allow-oom
-- Notes that a replay called a step differently from the call of its memo. (G7)
--
-- KEYS[1] tag
-- ARGV[1] run id
-- ARGV[2] token
-- ARGV[3] step key
--
-- Reply   {"ok"} | {"lost"} | {"cancelled"}
--
-- The first such step stays, so that each run is reported once, whichever worker replays.

local run = get(ARGV[1], 'status', 'token')
if run[2] ~= ARGV[2] then return refusal(run[1]) end
redis.call('HSETNX', run_key(ARGV[1]), 'changed_step', ARGV[3])
return {'ok'}
