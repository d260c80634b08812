#!lua
-- Issues one ticket, once: KEYS open, tickets, fence; ARGV incarnation, id, attempt, payload.
-- 1: issued. 0: this attempt, or a later one, is open already (a client's retry).
local fence = tonumber(redis.call('GET', KEYS[3]) or 0)
if fence > tonumber(ARGV[1]) then return redis.error_reply('FENCED') end
if fence < tonumber(ARGV[1]) then redis.call('SET', KEYS[3], ARGV[1]) end -- a broker that lost its data learns it again
local open = redis.call('HGET', KEYS[1], ARGV[2])
if open and tonumber(string.match(open, '(%d+)$')) >= tonumber(ARGV[3]) then return 0 end
redis.call('XADD', KEYS[2], '*', 'm', ARGV[4], 'id', ARGV[2], 'attempt', ARGV[3])
redis.call('HSET', KEYS[1], ARGV[2], 'tickets ' .. ARGV[3])
return 1
