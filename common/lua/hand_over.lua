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
if ARGV[8] ~= '' then -- as Sigma.after in common/sigma.py: running mean and deviation
  local bar, dev = string.match(redis.call('GET', KEYS[4]) or '', '^(%S+) (%S+)$')
  bar, dev = tonumber(bar or ''), tonumber(dev or '')
  local sigma_u, m = tonumber(ARGV[8]), tonumber(ARGV[9])
  if bar and dev and bar >= 0 and bar < math.huge and dev >= 0 and dev < math.huge then
    local away = sigma_u - bar
    dev = math.sqrt(m * (dev * dev + (1 - m) * (away * away)))
    bar = m * bar + (1 - m) * sigma_u
  else -- begin anew
    bar, dev = sigma_u, 0
  end
  redis.call('SET', KEYS[4], string.format('%.17g %.17g', bar, dev))
end
return 1
