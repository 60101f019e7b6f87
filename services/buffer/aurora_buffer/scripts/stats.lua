-- Returns entries, bytes, entries ever appended, the first and the last id (empty: no entry), and
-- for each group: name, consumers, pending entries, entries not yet delivered.
local function edge(position)
  local member = redis.call('ZRANGE', KEYS[2], position, position)[1]
  return member and id_of(member) or ''
end

local groups = {}
for i, group in ipairs(groups_of(KEYS[1])) do
  -- '\255' sorts behind whatever follows the id in a member.
  local after = '(' .. padded(field(group, 'last-delivered-id')) .. '\255'
  groups[i] = {
    field(group, 'name'),
    field(group, 'consumers'),
    field(group, 'pending'),
    redis.call('ZLEXCOUNT', KEYS[2], after, '+'),
  }
end
return {
  redis.call('ZCARD', KEYS[2]),
  tonumber(redis.call('HGET', KEYS[3], 'bytes') or 0),
  tonumber(redis.call('HGET', KEYS[3], 'appended') or 0),
  edge(0),
  edge(-1),
  groups,
}
