#!lua flags=allow-oom
-- Says that a process lives: KEYS procs; ARGV consumer, state. By the server's clock: those of hosts may be hours apart.
return redis.call('HSET', KEYS[1], ARGV[1], redis.call('TIME')[1] .. ' ' .. ARGV[2])
