#!lua
-- Publishes a result, acknowledges its input and advances the ticket, or refuses, in one step.
-- KEYS open, source, target, sigma; ARGV group, entry, id, attempt, from, to, payload, sigma_u or '', momentum.
-- 1: done. 0: the ticket has moved on (another worker, a retry, an older attempt): the input is acknowledged.
local open = redis.call('HGET', KEYS[1], ARGV[3])
if open ~= ARGV[5] .. ' ' .. ARGV[4] then
  redis.call('XACK', KEYS[2], ARGV[1], ARGV[2])
  return 0
end
redis.call('XADD', KEYS[3], '*', 'm', ARGV[7], 'id', ARGV[3], 'attempt', ARGV[4])
redis.call('XACK', KEYS[2], ARGV[1], ARGV[2])
redis.call('HSET', KEYS[1], ARGV[3], ARGV[6] .. ' ' .. ARGV[4])
if ARGV[8] ~= '' then
  local old = tonumber(redis.call('GET', KEYS[4]) or '')
  local sigma = tonumber(ARGV[8])
  if old and old >= 0 and old < math.huge then sigma = ARGV[9] * old + (1 - ARGV[9]) * sigma end -- else begin anew
  redis.call('SET', KEYS[4], string.format('%.17g', sigma))
end
return 1
