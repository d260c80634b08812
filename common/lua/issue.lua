#!lua
-- Issues tickets, each once: KEYS open, tickets, fence, issued; ARGV incarnation, then id, attempt, payload of each.
-- Per ticket 1: issued. 0: this attempt, or a later one, is open already (a client's retry), or was and is closed: a
-- dead connection may deliver a request late. A learner issues first attempts in sequence, so the last one tells.
local fence = tonumber(redis.call('GET', KEYS[3]) or 0) or 0
if fence > tonumber(ARGV[1]) then return redis.error_reply('FENCED') end
if fence < tonumber(ARGV[1]) then redis.call('SET', KEYS[3], ARGV[1]) end -- a broker that lost its data learns it again
local learner, following = string.match(redis.call('GET', KEYS[4]) or '', '^(%d+) (%d+)$')
following = learner == ARGV[1] and tonumber(following) or 0
local issued = {}
for i = 2, #ARGV, 3 do
  local id, attempt = tonumber(ARGV[i]), tonumber(ARGV[i + 1])
  local open = tonumber(string.match(redis.call('HGET', KEYS[1], ARGV[i]) or '', '^%l+ (%d+)$'))
  local known = open and open >= attempt or attempt == 1 and id < following
  if not known then
    redis.call('XADD', KEYS[2], '*', 'm', ARGV[i + 2], 'id', ARGV[i], 'attempt', ARGV[i + 1])
    redis.call('HSET', KEYS[1], ARGV[i], 'tickets ' .. ARGV[i + 1])
  end
  following = math.max(following, id + 1)
  issued[#issued + 1] = known and 0 or 1
end
redis.call('SET', KEYS[4], string.format('%s %.0f', ARGV[1], following))
return issued
