-- Which topic a name of results means: 1 when it is another than before, whose offsets are forgotten.
-- ARGV: prefix, name, id, how many partitions it has.
local key, partitions = P .. 'topic:' .. ARGV[2], tonumber(ARGV[4])
local known = call('HMGET', key, 'id', 'partitions')
local is_anew = known[1] and known[1] ~= ARGV[3]
if is_anew then
  for number = 0, math.max(partitions, tonumber(known[2])) - 1 do
    call('DEL', P .. 'offset:' .. ARGV[2] .. ':' .. string.format('%.0f', number))
  end
end
call('HSET', key, 'id', ARGV[3], 'partitions', ARGV[4])
return is_anew and 1 or 0
