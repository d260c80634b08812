#!lua flags=allow-oom
-- Says that somebody reads a version, now: KEYS reading; ARGV "step consumer". By the server's clock.
local now = redis.call('TIME')
return redis.call('ZADD', KEYS[1], tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000), ARGV[1])
