#!lua flags=allow-oom
-- Sets a value where there is none: KEYS key; ARGV value.
return redis.call('SETNX', KEYS[1], ARGV[1])
