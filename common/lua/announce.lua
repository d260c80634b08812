#!lua
-- Publishes the newest policy, for the living learner only: KEYS policy, fence; ARGV incarnation, payload.
local fence = tonumber(redis.call('GET', KEYS[2]) or 0) or 0
if fence > tonumber(ARGV[1]) then return redis.error_reply('FENCED') end
if fence < tonumber(ARGV[1]) then redis.call('SET', KEYS[2], ARGV[1]) end -- a broker that lost its data learns it again
redis.call('SET', KEYS[1], ARGV[2])
return 1
