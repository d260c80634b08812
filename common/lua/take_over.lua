#!lua
-- A fencing number above every earlier one: KEYS fence; ARGV the highest one that the caller knows of.
local number = math.max(tonumber(redis.call('GET', KEYS[1]) or 0), tonumber(ARGV[1])) + 1
redis.call('SET', KEYS[1], number)
return number
