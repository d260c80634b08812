#!lua flags=allow-oom
-- The marks of so many milliseconds; forgets the others: KEYS marks; ARGV milliseconds.
local now = redis.call('TIME')
local since = tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000) - tonumber(ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. since)
return redis.call('ZRANGE', KEYS[1], 0, -1)
