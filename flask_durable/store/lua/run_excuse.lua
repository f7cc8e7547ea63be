#!lua flags=allow-oom
-- Takes back the counted claims of runs: another run of the same process is tried, and
-- if the process dies now, that one is to blame. (G4)
--
-- KEYS[1] tag
-- ARGV    run id, token; at most 100 times
--
-- Reply   the number of the runs that are still the caller's
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
