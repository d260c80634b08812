#!lua
-- Puts a given-up ticket up again as its next attempt and forgets its letter.
-- KEYS open, tickets, dead; ARGV entry, id, attempt, next attempt, payload.
-- 1: done. 0: the letter is gone, or the ticket has moved on.
if #redis.call('XRANGE', KEYS[3], ARGV[1], ARGV[1]) == 0 then return 0 end
local open = redis.call('HGET', KEYS[1], ARGV[2])
if open and open ~= 'dead ' .. ARGV[3] then return 0 end
redis.call('XADD', KEYS[2], '*', 'm', ARGV[5], 'id', ARGV[2], 'attempt', ARGV[4])
redis.call('HSET', KEYS[1], ARGV[2], 'tickets ' .. ARGV[4])
redis.call('XDEL', KEYS[3], ARGV[1]) -- nobody reads this stream as a group, so no lag depends on it
return 1
