#!lua
-- Publishes the newest policy, for the living learner only: KEYS policy, fence; ARGV incarnation, payload.
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return redis.error_reply('FENCED') end
redis.call('SET', KEYS[1], ARGV[2])
return 1
