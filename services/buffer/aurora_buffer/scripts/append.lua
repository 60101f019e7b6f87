-- First in the transaction that appends: counts the entries, or sees to it that none is stored.
-- index.lua, which has the layout, is not sent in front: this goes along with every append.
--
-- KEYS as there. ARGV: the entries' bytes in all, the last one's id, and their index's members.
-- Returns whether they are to be stored (1 or 0), the bytes of the whole stream, the newest id as
-- the index has it, and Redis' clock: seconds and microseconds.
local function padded(id)
  local milliseconds, sequence = string.match(id, '^(%d+)%-(%d+)$')
  return string.rep('0', 20 - #milliseconds) .. milliseconds .. '-'
    .. string.rep('0', 20 - #sequence) .. sequence
end

-- The newest id is kept, since XINFO would also bring whole entries into Lua. It is as old as the
-- count beside it: others may have appended, as a buffer of a version that kept none.
local function newest_of(newest, counted, appended)
  if newest and counted == appended then
    return newest
  elseif redis.call('EXISTS', KEYS[1]) == 0 then
    return padded('0-0')
  end
  local stream = redis.call('XINFO', 'STREAM', KEYS[1])
  for i = 1, #stream, 2 do
    if stream[i] == 'last-generated-id' then
      return padded(stream[i + 1])
    end
  end
end

-- Redis 6.2 may still hold against a script that memory was short when another one ran, though
-- not once it has written something, and the XADDs that follow would not fail. This is allowed
-- always, and removes nothing.
redis.call('HDEL', KEYS[3], '')

local time = redis.call('TIME')
local kept = redis.call('HMGET', KEYS[3], 'newest', 'counted', 'appended', 'bytes')
local newest = newest_of(kept[1], kept[2], kept[3])
local first, last = string.sub(ARGV[3], 1, 41), string.sub(ARGV[#ARGV], 1, 41)
if first <= newest then
  -- Redis refuses all ids up to the newest: some of these are beyond it only if the last one is.
  if last > newest then
    redis.call('XSETID', KEYS[1], ARGV[2])
    redis.call('HSET', KEYS[3], 'newest', last, 'counted', kept[3] or '')
    newest = last
  end
  return {0, tonumber(kept[4] or 0), newest, time[1], time[2]}
end
local members = {}
for i = 3, #ARGV do
  members[#members + 1] = 0
  members[#members + 1] = ARGV[i]
end
redis.call('ZADD', KEYS[2], unpack(members))
local appended = redis.call('HINCRBY', KEYS[3], 'appended', #ARGV - 2)
redis.call('HSET', KEYS[3], 'newest', last, 'counted', appended)
return {1, redis.call('HINCRBY', KEYS[3], 'bytes', ARGV[1]), last, time[1], time[2]}
