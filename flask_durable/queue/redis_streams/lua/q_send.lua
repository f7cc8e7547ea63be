#!lua flags=allow-oom
-- Sends run messages although the server's memory is full. (G4, G10)
--
-- KEYS[1] stream
-- ARGV    bodies, at most 100
--
-- Reply   how many were sent
--
-- A run message is some bytes, there is one for a run, and the run that it wakes frees
-- more at its end. A repeated call sends them once more, which is harmless.

for i = 1, #ARGV do redis.call('XADD', KEYS[1], '*', 'body', ARGV[i]) end
return #ARGV
