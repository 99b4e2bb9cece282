-- Says that a process lives, and hands free locks to the next in line.
--
-- KEYS     members, then lock and line of each lock
-- ARGV     1 member, 2 dead_after and 3 forget_after in us, 4 channel of wakes
-- Returns  '1' if the process had been forgotten, else '0'; then of each lock its holder, or ''.

local members, member = KEYS[1], ARGV[1]
local dead_after, forget_after = tonumber(ARGV[2]), tonumber(ARGV[3])

local now = microseconds()
local was_forgotten = silent_for(members, member, now) > forget_after
says_it_lives(members, member, now)
redis.call('ZREMRANGEBYSCORE', members, '-inf', now - KEPT_MS * 1000)

local answers = { was_forgotten and '1' or '0' }
for i = 2, #KEYS, 2 do
  local lock, line = KEYS[i], KEYS[i + 1]
  local holder = redis.call('GET', lock)
  if not holder then
    local first, silent = first_alive(line, members, now, dead_after, forget_after)
    if first then
      hand_over(lock, first, silent, dead_after, ARGV[4])
      holder = first
    end
  end
  redis.call('PEXPIRE', line, KEPT_MS)
  answers[#answers + 1] = holder or ''
end
return answers
