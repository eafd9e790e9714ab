-- Lets an order in or not: the whole cart or nothing, once for its id.
-- ARGV: prefix, id, digest, lines as JSON [[ITEM, PIECES], …], '1' for all or none, buyer or '', ms after which an order
-- that is not known to be sent is sent again.
local id, digest, all_or_none, buyer, resend_after = ARGV[2], ARGV[3], ARGV[5] == '1', ARGV[6], tonumber(ARGV[7])
if buyer == '' then buyer = false end
-- Most pieces of an item that are subtracted at once, as rule.rs has it: up to there numbers are exact here.
local MOST_PENDING = 2 ^ 53
if call('EXISTS', P .. 'cache') == 0 then return {'empty'} end
local now = now_ms()
local key = order_key(id)
local known = call('HMGET', key, 'standing', 'digest', 'at', 'undecided')
local standing = known[1]
if standing then
  if known[2] and known[2] ~= digest then return {'conflict'} end
  if standing == 'sent' then return {'sent', known[4]} end
  if standing ~= 'admitted' then return {'decided'} end
  if now - tonumber(known[3]) < resend_after then return {'sending'} end
  call('HSET', key, 'at', now)
  call('ZADD', P .. 'unsettled', now, id)
  return {'resend', known[4]}
end

local lines = cjson.decode(ARGV[4])
local skus = by_sku(lines)
local limits = {}
for _, sku in ipairs(skus) do
  local sale = call('HMGET', P .. 'sale:' .. sku, 'opens_at', 'closed', 'buyer_pieces', 'buyer_window')
  if sale[2] then return {'not_open', sku, ''} end
  if sale[1] and now < tonumber(sale[1]) then return {'not_open', sku, sale[1]} end
  if sale[3] then limits[sku] = {tonumber(sale[3]), tonumber(sale[4]), own = {}} end
end

local undecided, faults, is_cut = not all_or_none, {}, false
for index, line in ipairs(lines) do
  local level = call('HMGET', item_key(line[1]), 'version', 'available', 'pending', 'backorder', 'limit')
  local pending, limit = tonumber(level[3] or 0), tonumber(level[5] or '')
  local amount = level[1] and tonumber(level[2]) - pending or 0
  local is_known = level[1] and tonumber(level[4]) == 0
  if not is_known then undecided = true end
  if not all_or_none and limit and line[2] > limit then
    -- It gets no more than that, whatever it asks for.
    line[2], is_cut = limit, true
  end
  local is_judged = is_known and all_or_none
  if is_judged and limit and line[2] > limit then
    faults[#faults + 1] = {index - 1, 'limit', limit}
  elseif is_judged and line[2] > amount or line[2] > MOST_PENDING - pending then
    faults[#faults + 1] = {index - 1, 'short', math.max(amount, 0)}
  end
end
if #faults > 0 then return {'short', faults} end
local kept = is_cut and lines_text(lines) or ARGV[4]

local _, pieces = by_sku(lines)
for _, sku in ipairs(skus) do
  local limit = limits[sku]
  if limit then
    if not buyer then return {'buyer_missing', sku} end
    local had = 0
    for _, bought in ipairs(call('ZRANGEBYSCORE', bought_key(sku, buyer), '(' .. string.format('%.0f', now - limit[2]), '+inf')) do
      local many, of = string.match(bought, '^(%d+):(.*)$')
      -- The same order again, whose entry is forgotten by now, is no second purchase.
      if of == id then limit.own[#limit.own + 1] = bought else had = had + tonumber(many) end
    end
    local left = math.max(limit[1] - had, 0)
    if pieces[sku] > left then return {'buyer_limit', sku, left} end
  end
end

-- From here on only writes.
for _, sku in ipairs(skus) do
  if limits[sku] then
    local bought, window = bought_key(sku, buyer), limits[sku][2]
    call('ZREMRANGEBYSCORE', bought, '-inf', now - window)
    for _, before in ipairs(limits[sku].own) do call('ZREM', bought, before) end
    call('ZADD', bought, now, purchase(pieces[sku], id))
    call('PEXPIRE', bought, window)
  end
end
local flag = undecided and '1' or '0'
call('HSET', key, 'standing', 'admitted', 'digest', digest, 'at', now, 'undecided', flag, 'lines', kept)
if buyer then call('HSET', key, 'buyer', buyer) end
call('ZADD', P .. 'unsettled', now, id)
for _, line in ipairs(lines) do call('HINCRBY', item_key(line[1]), 'pending', line[2]) end
return {'admitted', flag, string.format('%.0f', now)}
