-- The items to read levels of, each with the orders whose lines wait for it: to be asked before the levels are read.
-- ARGV: prefix, most waiting items that are added, most orders of each, then items.
local most, most_orders = tonumber(ARGV[2]), tonumber(ARGV[3])
local items, seen = {}, {}
for index = 4, #ARGV do
  items[#items + 1] = ARGV[index]
  seen[ARGV[index]] = true
end
if most > 0 then
  for _, item in ipairs(call('SRANDMEMBER', P .. 'waiting', most)) do
    if not seen[item] then items[#items + 1] = item end
  end
end
local found = {}
for index, item in ipairs(items) do
  -- Not all of them at once, where there are very many: the next read has the rest.
  found[index] = {item, call('HRANDFIELD', P .. 'waiting:' .. item, most_orders)}
end
return found
