-- Takes rows from a source's allowance.
--
-- KEYS     the bucket: a hash of `debt` in rows, and `at`, the microsecond to which it is paid
-- ARGV     rows, rows per second, the longest wait in microseconds
-- Returns  how long to wait, in microseconds: until the debt, these rows included, is paid.
--
-- A clock that is set back pays nothing for a while, and never more than it should.

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local rows, rate, wait_max = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local saved = redis.call('HMGET', KEYS[1], 'debt', 'at')
local debt, at = tonumber(saved[1] or 0), tonumber(saved[2] or now)

debt = math.max(0, debt - math.max(0, now - at) * rate / 1000000) + rows
local wait = math.min(wait_max, math.ceil(debt * 1000000 / rate))
redis.call('HSET', KEYS[1], 'debt', string.format('%.6f', debt), 'at', string.format('%.0f', now))
redis.call('PEXPIRE', KEYS[1], math.ceil(wait / 1000) + 1000)
return wait
