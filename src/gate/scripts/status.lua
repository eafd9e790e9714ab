-- How many entries have no result, how many wait for levels, and how old the oldest is in ms; whether it is filled.
-- ARGV: prefix.
local oldest
for _, set in ipairs({'unsettled', 'accepted'}) do
  local first = call('ZRANGE', P .. set, 0, 0, 'WITHSCORES')
  if first[2] and (not oldest or tonumber(first[2]) < oldest) then oldest = tonumber(first[2]) end
end
return {
  call('EXISTS', P .. 'cache'),
  call('ZCARD', P .. 'unsettled'),
  call('ZCARD', P .. 'accepted'),
  oldest and math.max(now_ms() - oldest, 0) or -1,
}
