-- ARGV: tenant and trajectory of each entry, in turn.
-- Returns the id of the last one, and the bytes of the whole stream.
local bytes, id = 0, nil
for i = 1, #ARGV, 2 do
  local tenant, trajectory = ARGV[i], ARGV[i + 1]
  local size = #tenant + #trajectory
  id = redis.call('XADD', KEYS[1], '*', 'tenant', tenant, 'trajectory', trajectory)
  redis.call('ZADD', KEYS[2], 0, padded(id) .. ' ' .. size .. ' ' .. tenant)
  bytes = bytes + size
end
redis.call('HINCRBY', KEYS[3], 'appended', #ARGV / 2)
return {id, redis.call('HINCRBY', KEYS[3], 'bytes', bytes)}
