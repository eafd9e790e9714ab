-- Settles results of a partition from one offset to another, all of them, or none where some before them are not settled.
-- ARGV: prefix, TOPIC:N, from, next, ms that ended entries are remembered, ms that orders without one are, then id and '1' for
-- accepted of each.
local offset, from, next_offset, keep_ms = P .. 'offset:' .. ARGV[2], tonumber(ARGV[3]), ARGV[4], ARGV[5]
local mark_ms = ARGV[6]
local stored = call('GET', offset)
if not stored then return {'empty'} end
if tonumber(stored) < from then return {'gap', stored} end
if tonumber(stored) >= tonumber(next_offset) then return {'already'} end
local now = now_ms()
for index = 7, #ARGV, 2 do settle_one(ARGV[index], ARGV[index + 1] == '1', now, keep_ms, mark_ms) end
call('SET', offset, next_offset)
return {'applied'}
