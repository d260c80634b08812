#!lua
-- Issues tickets, each once: KEYS open, tickets, fence; ARGV incarnation, then id, attempt, payload of each.
-- Per ticket 1: issued. 0: this attempt, or a later one, is open already (a client's retry).
local fence = tonumber(redis.call('GET', KEYS[3]) or 0) or 0
if fence > tonumber(ARGV[1]) then return redis.error_reply('FENCED') end
if fence < tonumber(ARGV[1]) then redis.call('SET', KEYS[3], ARGV[1]) end -- a broker that lost its data learns it again
local issued = {}
for i = 2, #ARGV, 3 do
  local attempt = string.match(redis.call('HGET', KEYS[1], ARGV[i]) or '', '^%l+ (%d+)$')
  local known = attempt and tonumber(attempt) >= tonumber(ARGV[i + 1])
  if not known then
    redis.call('XADD', KEYS[2], '*', 'm', ARGV[i + 2], 'id', ARGV[i], 'attempt', ARGV[i + 1])
    redis.call('HSET', KEYS[1], ARGV[i], 'tickets ' .. ARGV[i + 1])
  end
  issued[#issued + 1] = known and 0 or 1
end
return issued
