-- Entries without a result that were handed to the producer so many ms ago or longer, the oldest first: id, digest and
-- moment of each. ARGV: prefix, ms, how many of the oldest are left out, most.
local found = {}
local before = string.format('%.0f', now_ms() - tonumber(ARGV[2]))
for _, id in ipairs(call('ZRANGEBYSCORE', P .. 'unsettled', '-inf', before, 'LIMIT', ARGV[3], ARGV[4])) do
  local known = call('HMGET', order_key(id), 'digest', 'at')
  if known[1] then found[#found + 1] = {id, known[1], known[2]} end
end
return found
