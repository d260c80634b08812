#!lua
-- Issues one ticket, once: KEYS open, tickets, fence; ARGV incarnation, id, attempt, payload.
-- 1: issued. 0: this attempt, or a later one, is open already (a client's retry).
if redis.call('GET', KEYS[3]) ~= ARGV[1] then return redis.error_reply('FENCED') end
local open = redis.call('HGET', KEYS[1], ARGV[2])
if open and tonumber(string.match(open, '(%d+)$')) >= tonumber(ARGV[3]) then return 0 end
redis.call('XADD', KEYS[2], '*', 'm', ARGV[4])
redis.call('HSET', KEYS[1], ARGV[2], 'tickets ' .. ARGV[3])
return 1
