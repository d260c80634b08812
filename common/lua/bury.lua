#!lua flags=allow-oom
-- Moves a message to the dead-letter stream, also when the server is full: a learner that waits here frees nothing.
-- KEYS open, source, dead, fence; ARGV group, entry, id or '', attempt, stage, payload, most letters, incarnation or ''.
-- The oldest letter goes when there are too many: its ticket is dead all the same, and the learner books it.
-- A ticket that has moved on is left as it is; its old message is only acknowledged.
-- A learner says its incarnation: an older one does not know what the living one has issued.
if ARGV[8] ~= '' and (tonumber(redis.call('GET', KEYS[4]) or 0) or 0) > tonumber(ARGV[8]) then
  return redis.error_reply('FENCED')
end
if ARGV[3] ~= '' and redis.call('HGET', KEYS[1], ARGV[3]) ~= ARGV[5] .. ' ' .. ARGV[4] then
  redis.call('XACK', KEYS[2], ARGV[1], ARGV[2])
  return 0
end
redis.call('XADD', KEYS[3], 'MAXLEN', ARGV[7], '*', 'm', ARGV[6])
redis.call('XACK', KEYS[2], ARGV[1], ARGV[2])
if ARGV[3] ~= '' then redis.call('HSET', KEYS[1], ARGV[3], 'dead ' .. ARGV[4]) end
return 1
