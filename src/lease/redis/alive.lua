-- Which keys exist, and whether keys were lost since somebody last looked.
--
-- KEYS     the epoch, then the keys of jobs
-- ARGV     a new random value for the epoch
-- Returns  the epoch's value, then 1 or 0 for each job.
--
-- The epoch has no ttl: if it is gone, so is everything else that was there before (FLUSHALL, a restart without
-- persistence, a failover to an empty replica).

local epoch = redis.call('GET', KEYS[1])
if not epoch then
  redis.call('SET', KEYS[1], ARGV[1])
  epoch = ARGV[1]
end
local answers = { epoch }
for i = 2, #KEYS do
  answers[i] = tostring(redis.call('EXISTS', KEYS[i]))
end
return answers
