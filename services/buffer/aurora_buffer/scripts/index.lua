-- What the other scripts share; each of them but append.lua is sent with this in front.
--
-- KEYS of every script: the stream, its index, its totals. The index is a sorted set with one
-- member for each entry of the stream, all scores 0, so that members are ordered by their bytes:
--
--     <milliseconds, 20 digits>-<sequence, 20 digits> <bytes of the entry> <tenant>
--
-- It gives sizes, tenants and counts without reading a single trajectory. The totals are a hash:
-- `bytes` of all entries now, `appended` entries since the stream was made, the `newest` id as a
-- member has it, and the entries `counted` when that was set.

local ID_LENGTH = 41

local function padded(id)
  local dash = string.find(id, '-', 1, true)
  return string.rep('0', 21 - dash) .. string.sub(id, 1, dash)
    .. string.rep('0', 20 - (#id - dash)) .. string.sub(id, dash + 1)
end

local function id_of(member)
  local milliseconds, sequence = string.match(member, '^0*(%d+)%-0*(%d+) ')
  return milliseconds .. '-' .. sequence
end

local function size_of(member)
  return tonumber(string.match(member, '^(%d+) ', ID_LENGTH + 2))
end

local function tenant_of(member)
  local space = string.find(member, ' ', ID_LENGTH + 2, true)
  return string.sub(member, space + 1)
end

-- A field of what XINFO answers: names and values in turn.
local function field(row, name)
  for i = 1, #row, 2 do
    if row[i] == name then
      return row[i + 1]
    end
  end
end

local function groups_of(stream)
  if redis.call('EXISTS', stream) == 0 then
    return {}
  end
  return redis.call('XINFO', 'GROUPS', stream)
end

-- Removes entries from the stream, the index, the totals and every group's pending list.
-- Returns how often one of them was not yet acknowledged by a group.
local function remove(members)
  if #members == 0 then
    return 0
  end
  local ids, bytes, unacknowledged = {}, 0, 0
  for i, member in ipairs(members) do
    ids[i] = id_of(member)
    bytes = bytes + size_of(member)
  end
  for _, group in ipairs(groups_of(KEYS[1])) do
    local delivered = padded(field(group, 'last-delivered-id'))
    for _, member in ipairs(members) do
      if string.sub(member, 1, ID_LENGTH) > delivered then
        unacknowledged = unacknowledged + 1
      end
    end
    unacknowledged = unacknowledged
      + redis.call('XACK', KEYS[1], field(group, 'name'), unpack(ids))
  end
  redis.call('XDEL', KEYS[1], unpack(ids))
  redis.call('ZREM', KEYS[2], unpack(members))
  -- Not -bytes: Redis takes a negative zero for no number.
  redis.call('HINCRBY', KEYS[3], 'bytes', 0 - bytes)
  return unacknowledged
end
