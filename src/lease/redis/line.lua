-- What the scripts of locks share; they are appended to this.
--
-- A lock is a key that holds its holder's token, with a ttl. Before it there may be a line: a sorted set of tokens by
-- the microsecond at which they came. `members` is a sorted set of processes by the microsecond at which they last said
-- that they live. A token is "<member>:<number>", a member "<boot>.<number>"; wakes go to the channel of the boot.

local CONFIRM_MIN = 100000
local PAGE = 100
-- What nobody looks after any more goes away by itself.
local KEPT_MS = 3600000

local function microseconds()
  local time = redis.call('TIME')
  return time[1] * 1000000 + time[2]
end

local function member_of(token)
  return string.match(token, '^([^:]*):')
end

-- For how long a process has been silent. A clock that was set back makes it silent, not immortal.
local function silent_for(members, member, now)
  local at = redis.call('ZSCORE', members, member)
  return at and math.abs(now - at) or math.huge
end

local function says_it_lives(members, member, now)
  redis.call('ZADD', members, now, member)
  redis.call('PEXPIRE', members, KEPT_MS)
end

-- The first in line whose process lives, and for how long that was silent. Those that are forgotten leave.
local function first_alive(line, members, now, dead_after, forget_after)
  local silent, from = {}, 0
  while true do
    local page = redis.call('ZRANGE', line, from, from + PAGE - 1)
    local forgotten, first = {}, nil
    for _, token in ipairs(page) do
      local member = member_of(token)
      silent[member] = silent[member] or silent_for(members, member, now)
      if silent[member] <= dead_after then
        first = token
        break
      elseif silent[member] > forget_after then
        forgotten[#forgotten + 1] = token
      end
    end
    if #forgotten > 0 then
      redis.call('ZREM', line, unpack(forgotten))
    end
    if first then
      return first, silent[member_of(first)]
    elseif #page < PAGE then
      return nil
    end
    from = from + PAGE - #forgotten
  end
end

-- Gives a free lock to a token in line. It keeps its place until it confirms by taking the lock, which it has to do for
-- as long as its last sign of life counts.
local function hand_over(lock, token, silent, dead_after, wakes)
  local within = math.max(CONFIRM_MIN, dead_after - silent)
  redis.call('SET', lock, token, 'PX', math.ceil(within / 1000))
  redis.call('PUBLISH', wakes .. string.match(token, '^([^.]*)%.'), token .. ' ' .. lock)
end
