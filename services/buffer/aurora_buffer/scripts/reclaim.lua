-- ARGV: the group, the consumer that inherits, milliseconds without a sign of life after which
-- a consumer is dead, most entries to claim in this call.
-- Claims what dead consumers have pending and deletes each one that has nothing left, in one
-- step: a consumer that came back in between would lose what it was given. Returns the ids.
local group, heir, dead_after, limit = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local claimed = {}
for _, consumer in ipairs(redis.call('XINFO', 'CONSUMERS', KEYS[1], group)) do
  local name = field(consumer, 'name')
  local room = limit - #claimed
  if room > 0 and name ~= heir and field(consumer, 'idle') >= dead_after then
    local pending = redis.call('XPENDING', KEYS[1], group, '-', '+', room, name)
    local ids = {}
    for i, entry in ipairs(pending) do
      ids[i] = entry[1]
    end
    if #pending > 0 then
      ids[#ids + 1] = 'JUSTID'
      for _, id in ipairs(redis.call('XCLAIM', KEYS[1], group, heir, 0, unpack(ids))) do
        claimed[#claimed + 1] = id
      end
    end
    if #pending < room then
      redis.call('XGROUP', 'DELCONSUMER', KEYS[1], group, name)
    end
  end
end
return claimed
