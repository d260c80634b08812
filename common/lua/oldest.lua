#!lua flags=no-writes
-- Milliseconds that the oldest entry waits which the owning group has not acknowledged, -1 without one, for each stream:
-- KEYS stream...; ARGV group... By the server's clock, which made the entries' ids.
local time = redis.call('TIME')
local now, found = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000), {}
for i, stream in ipairs(KEYS) do
  local oldest = redis.call('XPENDING', stream, ARGV[i])[2]
  if not oldest then
    for _, info in ipairs(redis.call('XINFO', 'GROUPS', stream)) do
      local group = {}
      for j = 1, #info, 2 do group[info[j]] = info[j + 1] end
      if group.name == ARGV[i] then
        local next = redis.call('XRANGE', stream, '(' .. group['last-delivered-id'], '+', 'COUNT', 1)[1]
        oldest = next and next[1]
      end
    end
  end
  found[i] = oldest and math.max(0, now - tonumber(string.match(oldest, '%d+'))) or -1
end
return found
