-- Gives an entry without a result back and forgets it, if it was not handed to the producer since. ARGV: prefix, id, at.
local key = order_key(ARGV[2])
local known = call('HMGET', key, 'standing', 'at', 'lines', 'buyer')
if (known[1] ~= 'admitted' and known[1] ~= 'sent') or known[2] ~= ARGV[3] then return 0 end
give_pieces_back(ARGV[2], cjson.decode(known[3]), known[4])
call('ZREM', P .. 'unsettled', ARGV[2])
call('DEL', key)
return 1
