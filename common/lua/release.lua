#!lua flags=allow-oom
-- Hands messages back unworked: KEYS source; ARGV group, consumer, idle, entry...  Returns how many were the consumer's.
-- Their leases run out now, for others to claim, and the delivery that came to nothing does not count as a failure.
local released = 0
for i = 4, #ARGV do
  local pending = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1)
  if pending[1] and pending[1][2] == ARGV[2] then
    local before = pending[1][4] - 1
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'IDLE', ARGV[3], 'RETRYCOUNT', before, 'JUSTID')
    released = released + 1
  end
end
return released
