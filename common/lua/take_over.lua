#!lua flags=allow-oom
-- Makes a learner the living one: KEYS fence, learner; ARGV number, consumer.
-- 1: done, or it was before. 0: the number is gone to another learner.
-- The number is the caller's: a request that a dead connection delivers late must not fence off who sent it.
local fence = tonumber(redis.call('GET', KEYS[1]) or 0) or 0
if not (fence >= 0 and fence < 10 ^ 15) then fence = 0 end -- nobody counts that far: it is not ours
if fence >= tonumber(ARGV[1]) then
  return (fence == tonumber(ARGV[1]) and redis.call('GET', KEYS[2]) == ARGV[2]) and 1 or 0
end
redis.call('SET', KEYS[1], ARGV[1])
redis.call('SET', KEYS[2], ARGV[2])
return 1
