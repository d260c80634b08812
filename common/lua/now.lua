#!lua flags=no-writes
-- The clock of the server that has this run: KEYS any of the run's keys. In milliseconds.
local now = redis.call('TIME')
return tonumber(now[1]) * 1000 + math.floor(tonumber(now[2]) / 1000)
