-- Takes the keys of jobs for their owner.
--
-- KEYS     a key for each job
-- ARGV     ttl in ms, then for each key the value "<fence>:<random>"
-- Returns  for each key false if it is the owner's now, else the value that is in the way.
--
-- A free key is taken, the same value is our own (an earlier reply was lost), a lower fence is taken over. Fences count
-- claims: they stay far below 2^53, up to where Lua's numbers are exact.

local function fence(value)
  return tonumber(string.match(value, '^(%d+):')) or -1
end

local answers = {}
for i, key in ipairs(KEYS) do
  local wanted = ARGV[i + 1]
  local found = redis.call('GET', key)
  if not found or found == wanted or fence(found) < fence(wanted) then
    redis.call('SET', key, wanted, 'PX', ARGV[1])
    answers[i] = false
  else
    answers[i] = found
  end
end
return answers
