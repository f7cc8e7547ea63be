#!lua flags=allow-oom
-- Takes back the claims that were counted of runs: another run of the same process is
-- tried, and if the process dies now, it is that one's doing. (G4)
--
-- KEYS[1] tag
-- ARGV    run id, token; at most 100 times
--
-- Reply   how many of the runs are still the caller's
--
-- The token is compared where the count is written: a run that was taken over since is
-- the new owner's to excuse. A repeat finds the count at 0.

local excused = 0
for i = 1, #ARGV, 2 do
  if get(ARGV[i], 'token')[1] == ARGV[i + 1] then
    put(ARGV[i], 'dispatches', '0')
    excused = excused + 1
  end
end
return excused
