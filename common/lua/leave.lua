#!lua flags=allow-oom
-- Deletes a consumer that holds nothing: KEYS stream; ARGV group, consumer. Deleting one with pending entries strands them.
if #redis.call('XPENDING', KEYS[1], ARGV[1], '-', '+', 1, ARGV[2]) > 0 then return 0 end
redis.call('XGROUP', 'DELCONSUMER', KEYS[1], ARGV[1], ARGV[2])
return 1
