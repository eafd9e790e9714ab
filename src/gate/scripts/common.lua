-- What all scripts share. The rule, and the table of states, are at the top of src/gate/rule.rs.
--
-- Keys are made here from the prefix ARGV[1]: which ones are needed depends on what is stored, and a cluster, which would
-- have to know them before, is refused at the gate's start. No script fails after its first write: Redis undoes nothing.
--
--   cache                 string   there once it was filled from the ledger
--   filling:RANDOM        string   there while one gate fills it
--   item:ITEM             hash     available, version, backorder, limit: the last stored level; pending: pieces of entries
--   order:ID              hash     an entry: standing, digest, at, undecided, lines, buyer; left: lines not closed
--   unsettled, accepted   zset     ids of entries without a result, or that wait for levels; by time
--   waiting               set      items that accepted entries wait for
--   waiting:ITEM          hash     their order ids, each with its pieces
--   offset:TOPIC:N        string   how far results were settled
--   topic:TOPIC           hash     id, partitions: which topic those offsets are of
--   sale:SKU              hash     opens_at, closed, buyer_pieces, buyer_window
--   bought:SKU US BUYER   zset     PIECES:ID, by time
local P = ARGV[1]
local call = redis.call
local US = '\31' -- between an item's SKU and its location, and a SKU and its buyer: no id has a control character

local function now_ms()
  local time = call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function item_key(item) return P .. 'item:' .. item end
local function order_key(id) return P .. 'order:' .. id end
local function sku_of(item) return string.match(item, '^[^' .. US .. ']*') end

-- The SKUs of some lines in their order, each once, and the pieces of each.
local function by_sku(lines)
  local skus, pieces = {}, {}
  for _, line in ipairs(lines) do
    local sku = sku_of(line[1])
    if not pieces[sku] then
      skus[#skus + 1] = sku
      pieces[sku] = 0
    end
    pieces[sku] = pieces[sku] + line[2]
  end
  return skus, pieces
end

-- Lines as JSON, each number whole: cjson writes fourteen digits.
local function lines_text(lines)
  local texts = {}
  for index, line in ipairs(lines) do
    texts[index] = '[' .. cjson.encode(line[1]) .. ',' .. string.format('%.0f', line[2]) .. ']'
  end
  return '[' .. table.concat(texts, ',') .. ']'
end

local function bought_key(sku, buyer) return P .. 'bought:' .. sku .. US .. buyer end
local function purchase(pieces, id) return string.format('%.0f:', pieces) .. id end

-- Takes an entry's pieces from what is subtracted, and its purchases from its buyer's.
local function give_pieces_back(id, lines, buyer)
  for _, line in ipairs(lines) do
    local key = item_key(line[1])
    local pending = call('HINCRBY', key, 'pending', -line[2])
    if pending == 0 and call('HEXISTS', key, 'version') == 0 then call('DEL', key) end
  end
  if buyer then
    local skus, pieces = by_sku(lines)
    for _, sku in ipairs(skus) do call('ZREM', bought_key(sku, buyer), purchase(pieces[sku], id)) end
  end
end

-- Keeps of an entry what answers who asks again, for so long.
local function remember(id, standing, keep_ms)
  local key = order_key(id)
  call('HSET', key, 'standing', standing)
  call('HDEL', key, 'lines', 'left', 'buyer')
  call('PEXPIRE', key, keep_ms)
end

-- A result: of an entry without one, or of none. Where there is none, which is so of every order that came by no gate, a mark
-- says that it was decided, for mark_ms. A gate may have let it in all the same, before Redis went back to an older moment
-- or while it was away: whoever asks again then is answered from the ledger, and not let in a second time.
local function settle_one(id, is_accepted, now, keep_ms, mark_ms)
  local key = order_key(id)
  local entry = call('HMGET', key, 'standing', 'lines', 'buyer')
  local standing = entry[1]
  if not standing then
    if is_accepted then remember(id, 'decided', mark_ms) end
    return
  end
  if standing ~= 'admitted' and standing ~= 'sent' then return end
  local lines = cjson.decode(entry[2])
  call('ZREM', P .. 'unsettled', id)
  if not is_accepted then
    give_pieces_back(id, lines, entry[3])
    remember(id, 'rejected', keep_ms)
    return
  end
  call('HSET', key, 'standing', 'accepted', 'left', #lines)
  call('ZADD', P .. 'accepted', now, id)
  for _, line in ipairs(lines) do
    call('HSET', P .. 'waiting:' .. line[1], id, line[2])
    call('SADD', P .. 'waiting', line[1])
  end
end
