-- The items of these whose subtracted pieces are not those of their entries: item, what is subtracted, what should be.
-- ARGV: prefix, '1' to put it right, then items.
local sums = {}
local function add(item, pieces) sums[item] = (sums[item] or 0) + tonumber(pieces) end
for _, id in ipairs(call('ZRANGE', P .. 'unsettled', 0, -1)) do
  local lines = call('HGET', order_key(id), 'lines')
  for _, line in ipairs(lines and cjson.decode(lines) or {}) do add(line[1], line[2]) end
end
for _, item in ipairs(call('SMEMBERS', P .. 'waiting')) do
  for _, pieces in ipairs(call('HVALS', P .. 'waiting:' .. item)) do add(item, pieces) end
end
local found = {}
for index = 3, #ARGV do
  local item = ARGV[index]
  local pending, sum = tonumber(call('HGET', item_key(item), 'pending') or 0), sums[item] or 0
  if pending ~= sum then
    found[#found + 1] = {item, pending, sum}
    if ARGV[2] == '1' then call('HSET', item_key(item), 'pending', sum) end
  end
end
return found
