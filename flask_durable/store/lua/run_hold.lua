#!lua flags=allow-oom
-- Notes that a run has objects in the blob store, before the first of them is written.
-- (G10)
--
-- KEYS[1] tag
-- ARGV[1] run id
-- ARGV[2] token
--
-- Reply   {"ok"} | {"lost"} | {"cancelled"}
--
-- If it were noted with the memo that refers to an object, a crash between the two would
-- leave an object that no sweep removes. A caller that lost the run writes none: its
-- objects would come after those of the run were removed.

local run = get(ARGV[1], 'status', 'token')
if run[2] ~= ARGV[2] then return refusal(run[1]) end
put(ARGV[1], 'blobs', '1')
return {'ok'}
