#!lua
-- Adds a step and its groups to what the run did lately: KEYS steps, groups; ARGV most steps, most groups, step, group...
redis.call('RPUSH', KEYS[1], ARGV[3])
redis.call('LTRIM', KEYS[1], -ARGV[1], -1)
for i = 4, #ARGV do redis.call('RPUSH', KEYS[2], ARGV[i]) end
redis.call('LTRIM', KEYS[2], -ARGV[2], -1)
return 1
