-- Says that the cache was filled: 0 where what stood here since filling began is gone, and so is what was stored since.
-- ARGV: prefix, the mark's name.
if call('DEL', P .. ARGV[2]) == 0 then return 0 end
call('SET', P .. 'cache', 'filled')
return 1
