-- Gives up a lock or a place in line, and hands the lock to the next.
--
-- KEYS     lock, line, members
-- ARGV     1 token, 2 dead_after and 3 forget_after in us, 4 channel of wakes
-- Returns  1 if the token held the lock, else 0.

local lock, line, members = KEYS[1], KEYS[2], KEYS[3]
local dead_after, forget_after = tonumber(ARGV[2]), tonumber(ARGV[3])

redis.call('ZREM', line, ARGV[1])
if redis.call('GET', lock) ~= ARGV[1] then
  return 0
end
local first, silent = first_alive(line, members, microseconds(), dead_after, forget_after)
if first then
  hand_over(lock, first, silent, dead_after, ARGV[4])
else
  redis.call('DEL', lock)
end
return 1
