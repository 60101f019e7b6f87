-- ARGV: the tenant, where to go on (a member of the index; empty: from the start), and how many
-- entries to look at in this call.
-- Returns the entries removed, where to go on (empty: nothing is left), and the bytes left.
local from = ARGV[2] == '' and '-' or '(' .. ARGV[2]
local page = redis.call('ZRANGEBYLEX', KEYS[2], from, '+', 'LIMIT', 0, ARGV[3])
local doomed = {}
for _, member in ipairs(page) do
  if tenant_of(member) == ARGV[1] then
    doomed[#doomed + 1] = member
  end
end
remove(doomed)
return {#doomed, page[#page] or '', tonumber(redis.call('HGET', KEYS[3], 'bytes') or 0)}
