#!lua flags=allow-oom
-- Streams with their owning groups, from the first entry on ($ would skip what came before): KEYS stream...; ARGV group...
-- Also when the server is full: a learner that starts then is the one who makes room.
for i, stream in ipairs(KEYS) do
  local made = redis.pcall('XGROUP', 'CREATE', stream, ARGV[i], '0', 'MKSTREAM')
  if made.err and not string.find(made.err, 'BUSYGROUP', 1, true) then return made end
end
return 1
