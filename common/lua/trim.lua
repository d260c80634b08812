#!lua flags=allow-oom
-- Removes what the owning group has acknowledged, from the head only: KEYS stream, lost; ARGV group, stage.
-- XDEL would leave tombstones and XTRIM MAXLEN would cut unread entries: both make lag wrong.
-- Every other group is a shadow: it holds nothing back, and what goes before it has read it is counted as lost to it.
local function split(id)
  local ms, number = string.match(id, '(%d+)-(%d+)')
  return tonumber(ms), tonumber(number)
end
local function before(one, other)
  local ms, number = split(one)
  local other_ms, other_number = split(other)
  return ms < other_ms or ms == other_ms and number < other_number
end
local shadows, keep_from = {}, redis.call('XPENDING', KEYS[1], ARGV[1])[2]
for _, info in ipairs(redis.call('XINFO', 'GROUPS', KEYS[1])) do
  local group = {}
  for i = 1, #info, 2 do group[info[i]] = info[i + 1] end
  if group.name ~= ARGV[1] then
    shadows[#shadows + 1] = {name = group.name, last = group['last-delivered-id']}
  elseif not keep_from then
    keep_from = group['last-delivered-id']
  end
end
if not keep_from then return 0 end
table.sort(shadows, function(a, b) return before(a.last, b.last) end)
for _, shadow in ipairs(shadows) do
  if before(shadow.last, keep_from) then -- all that it has read goes first, so that the rest can be counted
    local ms, number = split(shadow.last)
    redis.call('XTRIM', KEYS[1], 'MINID', string.format('%.0f-%.0f', ms, number + 1))
    shadow.behind = redis.call('XLEN', KEYS[1])
  end
end
redis.call('XTRIM', KEYS[1], 'MINID', keep_from)
local left = redis.call('XLEN', KEYS[1])
for _, shadow in ipairs(shadows) do
  if shadow.behind and shadow.behind > left then
    local name = ARGV[2] .. ' ' .. shadow.name
    local known = redis.call('HGET', KEYS[2], name) or ''
    local lost = #known <= 15 and tonumber(string.match(known, '^%d+$')) or 0 -- else it is not ours
    redis.call('HSET', KEYS[2], name, string.format('%.0f', lost + shadow.behind - left))
  end
end
return left
