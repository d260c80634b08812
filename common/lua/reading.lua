#!lua flags=allow-oom
-- Steps that were read within so many milliseconds; forgets the others: KEYS reading; ARGV milliseconds.
local now = redis.call('TIME')
local since = tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000) - tonumber(ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', '(' .. since)
local steps = {}
for _, member in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
  steps[#steps + 1] = string.match(member, '^(%d+) ')
end
return steps
