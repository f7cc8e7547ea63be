#!lua flags=allow-oom
-- Notes how far a run has come, for those who look at it. (G3)
--
-- KEYS[1] tag
-- ARGV[1] run id
-- ARGV[2] token
-- ARGV[3] how far, opaque
--
-- Reply   {"ok"} | {"lost"} | {"cancelled"}
--
-- The token is compared here, where the field is written: a worker that lost the run shows
-- nothing over what its new owner has shown. A repeat writes the same text. One field.

local run = get(ARGV[1], 'status', 'token')
if run[2] ~= ARGV[2] then return refusal(run[1]) end
put(ARGV[1], 'progress', ARGV[3])
return {'ok'}
