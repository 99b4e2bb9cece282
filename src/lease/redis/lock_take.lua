-- Takes a lock, stands in line for it, or confirms that it was handed over.
--
-- KEYS     lock, line, members
-- ARGV     1 token, 2 ttl in ms, 3 dead_after and 4 forget_after in us, 5 channel of wakes,
--          6 'apart' or 'line', 7 the place that was had before, or ''
-- Returns  0 held, -1 taken, else the place in line.

local lock, line, members = KEYS[1], KEYS[2], KEYS[3]
local token, ttl, wakes = ARGV[1], ARGV[2], ARGV[5]
local dead_after, forget_after = tonumber(ARGV[3]), tonumber(ARGV[4])

local function hold()
  redis.call('SET', lock, token, 'PX', ttl)
  redis.call('ZREM', line, token)
  return 0
end

local holder = redis.call('GET', lock)
if holder == token then
  return hold()
end

local now = microseconds()
local answer = -1
if ARGV[6] == 'line' then
  says_it_lives(members, member_of(token), now)
  local place = redis.call('ZSCORE', line, token)
  if not place then
    place = tonumber(ARGV[7])
    if not place then
      local last = redis.call('ZREVRANGE', line, 0, 0, 'WITHSCORES')
      place = math.max(now, (tonumber(last[2]) or 0) + 1)
    end
    redis.call('ZADD', line, place, token)
    redis.call('PEXPIRE', line, KEPT_MS)
  end
  answer = tonumber(place)
end

if not holder then
  local first, silent = first_alive(line, members, now, dead_after, forget_after)
  if not first or first == token then
    return hold()
  end
  hand_over(lock, first, silent, dead_after, wakes)
end
return answer
