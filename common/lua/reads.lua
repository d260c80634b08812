#!lua flags=allow-oom
-- Says that somebody reads a version now, if not so many others do: KEYS reading; ARGV "step consumer", milliseconds that a
-- reader is counted for, most. By the server's clock. 0: it has to wait.
local now = redis.call('TIME')
now = tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. now - tonumber(ARGV[2]))
if not redis.call('ZSCORE', KEYS[1], ARGV[1]) and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[3]) then return 0 end
redis.call('ZADD', KEYS[1], now, ARGV[1])
return 1
