#!lua flags=allow-oom
-- Publishes the newest policy, for the living learner only: KEYS policy, fence, announced; ARGV incarnation, step, payload.
-- 0: a later step is known, and this request came late, from a dead connection. Its weights may be gone by now.
local fence = tonumber(redis.call('GET', KEYS[2]) or 0) or 0
if fence > tonumber(ARGV[1]) then return redis.error_reply('FENCED') end
if fence < tonumber(ARGV[1]) then redis.call('SET', KEYS[2], ARGV[1]) end -- a broker that lost its data learns it again
local incarnation, step = string.match(redis.call('GET', KEYS[3]) or '', '(%d+) (%d+)')
if incarnation == ARGV[1] and tonumber(step) > tonumber(ARGV[2]) then return 0 end
redis.call('SET', KEYS[3], ARGV[1] .. ' ' .. ARGV[2])
redis.call('SET', KEYS[1], ARGV[3])
return 1
