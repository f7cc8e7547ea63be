#!lua flags=allow-oom
-- Keeps the place that a step's body has come to in the memo of its unfinished step.
-- (G2, G3, G10)
--
-- KEYS[1] tag
-- ARGV[1] run id
-- ARGV[2] token
-- ARGV[3] step key
-- ARGV[4] number of the attempt
-- ARGV[5] payload of the memo with the checkpoint in it, opaque
-- ARGV[6] the number of steps a run may have
-- ARGV[7] the bytes of memos a run may have
--
-- Reply   {"ok"}
--         {"ended"}       the step has an outcome, or is no step with a body
--         {"full", what}  "steps" or "bytes": the run has reached its limit
--         {"lost"} | {"cancelled"}
--
-- The checkpoint has no key or field of its own: step_commit and run_suspend write over
-- the memo, so they remove it without knowing of it, and a claim reads it with the memos.
-- A step without a memo becomes "begun". One that was tried, or has an intent, keeps the
-- head of its memo, so that its attempts are counted as if there were no checkpoint.
--
-- A late call, of a thread that the body left behind, finds the outcome and changes
-- nothing. A repeat writes the same memo. It is no progress: a body that kills its worker
-- again and again is paused at last. One read and two writes.

local id, token, step = ARGV[1], ARGV[2], ARGV[3]
local run = get(id, 'status', 'token', 'bytes', 'removed')
if run[2] ~= token then return refusal(run[1]) end

local existing = redis.call('HGET', steps_key(id), step)
local memos = redis.call('HLEN', steps_key(id))
local value
if existing then
  local was, by, number, order = head(existing)
  if was ~= 'begun' and was ~= 'tried' and was ~= 'intent' then return {'ended'} end
  value = memo(was, by, number, order, ARGV[5])
else
  value = memo('begun', token, tonumber(ARGV[4]), text(memos + (run[4] or 0)), ARGV[5])
end
local full = excess(existing, memos, value, run[3], ARGV[6], ARGV[7])
if full then return {'full', full} end

write_memo(id, step, existing, value)
return {'ok'}
