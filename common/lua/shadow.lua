#!lua flags=allow-oom
-- Joins a stream as the only consumer of a group that owns nothing: KEYS stream; ARGV group, consumer, start, living ms.
-- {'new'}: made at `start`. {'kept'}: it was there. {'none'}: there is no stream, and whoever only watches makes none.
-- {'taken', consumer, idle ms}: somebody else asked within the last `living` ms. The dead ones hold nothing and go.
if redis.call('EXISTS', KEYS[1]) == 0 then return {'none'} end
local made = redis.pcall('XGROUP', 'CREATE', KEYS[1], ARGV[1], ARGV[3])
if made.err and not string.find(made.err, 'BUSYGROUP', 1, true) then return made end
for _, info in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], ARGV[1])) do
  local other = {}
  for i = 1, #info, 2 do other[info[i]] = info[i + 1] end
  if other.name ~= ARGV[2] then
    if other.idle < tonumber(ARGV[4]) then return {'taken', other.name, tostring(other.idle)} end
    redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], other.name)
  end
end
redis.call('XGROUP', 'CREATECONSUMER', KEYS[1], ARGV[1], ARGV[2])
return {made.err and 'kept' or 'new'}
