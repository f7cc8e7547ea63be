#!lua flags=allow-oom
-- Stores the branches that a step is to have, a page at a time, before the first of them
-- is made. For a step whose branches take several pages of branches_start. (G2, G3)
--
-- KEYS[1] tag
-- ARGV[1] run id of the parent
-- ARGV[2] token
-- ARGV[3] lease, milliseconds
-- ARGV[4] step key
-- ARGV[5] the JSON of the memo that the step is to have
-- ARGV[6] the number of branches in earlier pages
-- ARGV[7] the number of branches in all pages
-- ARGV[8] the number of texts of a branch
-- ARGV[9] the bytes of the items of all branches
-- ARGV[10] the number of steps a run may have
-- ARGV[11] the bytes that a run may have
-- ARGV[12..] the texts of at most 250 branches, as in branches_start
--
-- Reply   {"ok"}              the page is stored; the caller owns the run
--         {"full", what}      "steps" or "bytes": the branches have no room in the run,
--                             and the caller owns it
--         {"lost"} | {"cancelled"}
--
-- The list is "<generation of the run> <branches> <texts of one> <token>", the JSON of the
-- memo, and the texts. It is *complete* when it has as many as its first line says.
--
-- Race that this closes: the parent dies between two pages of branches, and what its body
-- makes the list of changes. The next owner finds the memo waiting, and takes the branches
-- from here: each item has one branch, as if nothing had happened. No branch is made
-- before the list is complete. So one that is not, and one that no memo waits beside, is
-- written over. A person's retry has another generation, and stores a list of its own.
--
-- The list is removed with the last page of branches, with the step's outcome, or with the
-- run. Until then its bytes are no part of the run's: those of the branches are.
--
-- A repeat finds the page stored, by the length of the list that has its token.

local id, token, step = ARGV[1], ARGV[2], ARGV[4]
local run = get(id, 'status', 'token', 'generation', 'bytes', 'branched')
if run[2] ~= token then return refusal(run[1]) end

local list = list_key(id, step)
local first = run[3] .. ' ' .. ARGV[7] .. ' ' .. ARGV[8] .. ' ' .. token
local offset = tonumber(ARGV[6]) * tonumber(ARGV[8])
local stored = 0
if redis.call('LINDEX', list, 0) == first then
  stored = redis.call('LLEN', list) - 2
elseif offset == 0 then
  -- Branches that exist are counted already: branches_start looks at each.
  local steps, bytes = 0, 0
  if redis.call('EXISTS', group_key(id, step)) == 0 then
    steps = redis.call('HLEN', steps_key(id)) + tonumber(run[5] or '0')
    bytes = tonumber(run[4] or '0')
  end
  if steps + tonumber(ARGV[7]) > tonumber(ARGV[10]) then return {'full', 'steps'} end
  if bytes + tonumber(ARGV[9]) > tonumber(ARGV[11]) then return {'full', 'bytes'} end
  redis.call('UNLINK', list)
  redis.call('RPUSH', list, first, ARGV[5])
  redis.call('SADD', tag .. ':groups:' .. id, step)
  put(id, 'children', '1')
end
if offset > stored then return {'lost'} end
if offset == stored then redis.call('RPUSH', list, unpack(ARGV, 12)) end
redis.call('ZADD', tag .. ':leases', clock() + tonumber(ARGV[3]), id)
return {'ok'}
