#!lua flags=allow-oom
-- Gives an event to a step that waits for it. (G2, G4)
--
-- KEYS[1] tag
-- ARGV[1] run id
-- ARGV[2] step key
-- ARGV[3] event id
-- ARGV[4] when the event was seen first, milliseconds since 1970
-- ARGV[5] the end of the wait, milliseconds since 1970; "" if the memo says it
-- ARGV[6] payload of the memo: that of the wait that the event fits
-- ARGV[7] text of the event, opaque
-- ARGV[8] name of the event
--
-- Reply   {"queued", time, function, queue}  the run goes on with it; its message is owed
--         {"taken"}    the step has it, and no message of the run is owed
--         {"settled"}  the step has another outcome, or the run has ended
--         {"late"}     it was seen after the end of the wait
--         {"used"}     a wait of the run has used it, and this one still waits
--         {"own"}      it is the event that the run was created for
--         {"abandoned"} it is a branch that its run does not wait for any more
--
-- The memo of a wait is written once: by this script, by the sweep at the end of the
-- wait, or by nobody. run_suspend looks for it where the run becomes wakeable, so an
-- event that comes before that is not lost. Whether the event is used, and that it now
-- is, is decided in the same script: two waits of a run never get one event. A branch is
-- a part of its run: what is used is noted for the run, in the same partition. The event
-- that started the run is in the record of each branch.
--
-- Apps may give one id to events of several names, such as an order's, so an event is
-- known by both. The memo has its id in the place of a token. A repeat finds that, and the run's
-- message if it is still owed, and gives the first answer.

local id, step, event = ARGV[1], ARGV[2], ARGV[3]
local run = get(id, 'status', 'event_id', 'removed', 'root', 'event_name')
if not run[1] then return {'settled'} end

local token = 'event:' .. event
local existing = redis.call('HGET', steps_key(id), step)
local ends, order = tonumber(ARGV[5]), nil
if existing then
  local was, by
  was, by, ends, order = head(existing)
  if was ~= 'waiting' then
    return by == token and given(id) or {'settled'}
  end
end
if terminal(run[1]) then return {'settled'} end
if event == run[2] and ARGV[8] == run[5] then return {'own'} end
if ends and tonumber(ARGV[4]) > ends then return {'late'} end
if run[4] and abandoned(id) then return {'abandoned'} end
local used = tag .. ':used:' .. (run[4] or id)
if redis.call('SADD', used, ARGV[8] .. ' ' .. event) == 0 then return {'used'} end

local now = clock()
order = order or text(redis.call('HLEN', steps_key(id)) + (run[3] or 0))
local value = memo('done', token, now, order, ARGV[6] .. ARGV[7])
put(id, 'dispatches', '0', 'attempt', '0')
answer_wait(id, step, existing, value, now)
return given(id)
