#!lua flags=allow-oom
-- Closes tickets whose effect is durable: KEYS open, source, fence; ARGV incarnation, group, then id, attempt, entry
-- ('' when no message is held). A later attempt stays open; its own result will be closed as a duplicate.
local fence = tonumber(redis.call('GET', KEYS[3]) or 0) or 0
if fence > tonumber(ARGV[1]) then return redis.error_reply('FENCED') end
if fence < tonumber(ARGV[1]) then redis.call('SET', KEYS[3], ARGV[1]) end -- a broker that lost its data learns it again
local closed = 0
for i = 3, #ARGV, 3 do
  if ARGV[i + 2] ~= '' then redis.call('XACK', KEYS[2], ARGV[2], ARGV[i + 2]) end
  local open = redis.call('HGET', KEYS[1], ARGV[i])
  if open and string.match(open, '(%d+)$') == ARGV[i + 1] then
    closed = closed + redis.call('HDEL', KEYS[1], ARGV[i])
  end
end
return closed
