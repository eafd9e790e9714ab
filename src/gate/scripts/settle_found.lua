-- Settles an entry whose decision was looked up, if it is still without a result.
-- ARGV: prefix, id, digest, '1' for accepted, ms that it is remembered.
local known = call('HMGET', order_key(ARGV[2]), 'standing', 'digest')
if (known[1] == 'admitted' or known[1] == 'sent') and known[2] == ARGV[3] then
  settle_one(ARGV[2], ARGV[4] == '1', now_ms(), ARGV[5])
end
