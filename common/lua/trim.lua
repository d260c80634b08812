#!lua flags=allow-oom
-- Removes what the owning group has acknowledged, from the head only: KEYS stream; ARGV group.
-- XDEL would leave tombstones and XTRIM MAXLEN would cut unread entries: both make lag wrong.
local pending = redis.call('XPENDING', KEYS[1], ARGV[1])
local keep_from = pending[2]
if pending[1] == 0 then
  for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
    local name, last
    for i = 1, #info, 2 do
      if info[i] == 'name' then name = info[i + 1] end
      if info[i] == 'last-delivered-id' then last = info[i + 1] end
    end
    if name == ARGV[1] then keep_from = last end
  end
end
if not keep_from then return 0 end
return redis.call('XTRIM', KEYS[1], 'MINID', keep_from)
