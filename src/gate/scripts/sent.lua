-- Kafka has these orders. ARGV: prefix, then id and digest of each.
for index = 2, #ARGV, 2 do
  local key = order_key(ARGV[index])
  local known = call('HMGET', key, 'standing', 'digest')
  if known[1] == 'admitted' and known[2] == ARGV[index + 1] then call('HSET', key, 'standing', 'sent') end
end
