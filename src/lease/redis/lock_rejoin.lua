-- Puts tokens where they stood in line, unless they are there, or hold their lock.
--
-- KEYS     lock and line of each token
-- ARGV     token and place of each

for i = 1, #KEYS, 2 do
  local token, place = ARGV[i], ARGV[i + 1]
  if redis.call('GET', KEYS[i]) ~= token then
    redis.call('ZADD', KEYS[i + 1], 'NX', place, token)
    redis.call('PEXPIRE', KEYS[i + 1], KEPT_MS)
  end
end
return 0
