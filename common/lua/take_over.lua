#!lua
-- A fencing number above every earlier one: KEYS fence; ARGV the highest one that the caller knows of.
local fence = tonumber(redis.call('GET', KEYS[1]) or 0) or 0
if not (fence >= 0 and fence < 2 ^ 50) then fence = 0 end -- nobody counts that far: it is not ours
local number = math.max(fence, tonumber(ARGV[1])) + 1
redis.call('SET', KEYS[1], number)
return number
