#!lua
-- Moves a message to the dead-letter stream: KEYS open, source, dead; ARGV group, entry, id or '', attempt, payload.
-- A ticket that has moved on is left as it is; its old message is only acknowledged.
local open = ARGV[3] ~= '' and redis.call('HGET', KEYS[1], ARGV[3])
if ARGV[3] ~= '' and (not open or string.match(open, '(%d+)$') ~= ARGV[4] or string.sub(open, 1, 4) == 'dead') then
  redis.call('XACK', KEYS[2], ARGV[1], ARGV[2])
  return 0
end
redis.call('XADD', KEYS[3], '*', 'm', ARGV[5])
redis.call('XACK', KEYS[2], ARGV[1], ARGV[2])
if ARGV[3] ~= '' then redis.call('HSET', KEYS[1], ARGV[3], 'dead ' .. ARGV[4]) end
return 1
