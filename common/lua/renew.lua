#!lua flags=allow-oom
-- Renews leases: KEYS source; ARGV group, consumer, entry...  Returns the entries that are still the consumer's.
-- XCLAIM alone would steal an entry back from the worker that took it over.
local mine = {}
for i = 3, #ARGV do
  local pending = redis.call('XPENDING', KEYS[1], ARGV[1], ARGV[i], ARGV[i], 1)
  if pending[1] and pending[1][2] == ARGV[2] then
    redis.call('XCLAIM', KEYS[1], ARGV[1], ARGV[2], 0, ARGV[i], 'JUSTID')
    mine[#mine + 1] = ARGV[i]
  end
end
return mine
