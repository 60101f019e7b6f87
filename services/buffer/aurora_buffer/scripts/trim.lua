-- ARGV: most bytes to keep, greatest age in milliseconds, most entries to remove in this call.
-- Removes from the oldest on. Returns the entries removed, how often one of them was not yet
-- acknowledged by a group, and the bytes left.
local PAGE = 64
local max_bytes, limit = tonumber(ARGV[1]), tonumber(ARGV[3])
local time = redis.call('TIME')
local oldest = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) - tonumber(ARGV[2])
local left = tonumber(redis.call('HGET', KEYS[3], 'bytes') or 0)
local doomed, finished = {}, false
while not finished and #doomed < limit do
  local page = redis.call('ZRANGE', KEYS[2], #doomed, #doomed + math.min(PAGE, limit - #doomed) - 1)
  finished = #page == 0
  for _, member in ipairs(page) do
    if left <= max_bytes and tonumber(string.sub(member, 1, 20)) >= oldest then
      finished = true
      break
    end
    doomed[#doomed + 1] = member
    left = left - size_of(member)
  end
end
return {#doomed, remove(doomed), left}
