-- Extends keys that hold what their owner wrote: leases and locks.
--
-- KEYS     the keys
-- ARGV     for each key the ttl in ms and the value
-- Returns  for each key false if it was extended, '' if it is missing, else the value that it holds.

local answers = {}
for i, key in ipairs(KEYS) do
  local found = redis.call('GET', key)
  if found == ARGV[2 * i] then
    redis.call('PEXPIRE', key, ARGV[2 * i - 1])
    answers[i] = false
  else
    answers[i] = found or ''
  end
end
return answers
