-- Stores levels that were read, unless newer ones are stored, and closes the lines that waited before the read began.
-- ARGV: prefix, ms that closed entries are remembered, then of each level: item, available or '' where the ledger knows no
-- such item, version, backorder, limit or '', how many orders, the orders.
local keep_ms, index = ARGV[2], 3
while index <= #ARGV do
  local item, count = ARGV[index], tonumber(ARGV[index + 5])
  local key, waiting = item_key(item), P .. 'waiting:' .. item
  local stored = call('HGET', key, 'version')
  local is_known = ARGV[index + 1] ~= ''
  if is_known and (not stored or tonumber(ARGV[index + 2]) >= tonumber(stored)) then
    call('HSET', key, 'available', ARGV[index + 1], 'version', ARGV[index + 2], 'backorder', ARGV[index + 3])
    if ARGV[index + 4] == '' then call('HDEL', key, 'limit') else call('HSET', key, 'limit', ARGV[index + 4]) end
  end
  for at = index + 6, index + 5 + count do
    local id = ARGV[at]
    local pieces = call('HGET', waiting, id)
    if pieces then
      call('HDEL', waiting, id)
      local pending = call('HINCRBY', key, 'pending', '-' .. pieces)
      if pending == 0 and not is_known and not stored then call('DEL', key) end
      if call('HINCRBY', order_key(id), 'left', -1) == 0 then
        call('ZREM', P .. 'accepted', id)
        remember(id, 'closed', keep_ms)
      end
    end
  end
  if count > 0 and call('EXISTS', waiting) == 0 then call('SREM', P .. 'waiting', item) end
  index = index + 6 + count
end
