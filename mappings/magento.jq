# Orders of Magento and Adobe Commerce: as its REST API gives them, or as events of Adobe I/O.
#
# https://developer.adobe.com/commerce/webapi/rest/ (sales/v1 orders: items, state),
# https://developer.adobe.com/commerce/extensibility/events/ (CloudEvents with the entity in data.value; numbers are text),
# app/code/Magento/Sales/Model/Order/Item.php in github.com/magento/magento2 (what is cancelled of which item).
#
# * Events: observer.sales_order_save_after, …_save_commit_after and …_place_after, plugin…order_repository.save and
#   …order_management.place. Their fields need increment_id, state, store_id, and of items item_id, parent_item_id,
#   product_type, sku, qty_ordered, qty_canceled, qty_shipped and qty_invoiced: without these last two a cancellation gives
#   back what was shipped, too, and nobody notices. Others ask for nothing: those of invoices, shipments and credit memos
#   have items and numbers too, which are no orders'.
# * Stock is taken of simple, virtual, downloadable and grouped items: children, not the configurable or bundle around them,
#   which have no stock of their own. Of each, what was ordered less what was cancelled; where Magento notes a cancellation
#   at the item around it, the child's share of that.
# * state canceled gives all back. Where something was shipped or invoiced before, it is a dead letter: Magento gives back
#   the rest alone, so send order.returned. closed (refunded) asks for nothing: it does not say what came back.
# * An order that is partly cancelled later is other content under the same id, so a dead letter: send order.returned.
# * The id is the increment id, {shop} the store's id.

def named: {id: (.increment_id // .entity_id // error("an order of Magento has an increment_id")), shop: .store_id} | order_id;

def pieces: (text // 0) | number;

def canceled: .qty_canceled | pieces;

def is_partly_done: any(.items[] | .qty_shipped, .qty_invoiced; pieces > 0);

def ordered: (.qty_ordered // error("an item has no qty_ordered: no order of Magento, or the event leaves it out")) | number;

def quantity($around): ordered as $ordered
  | ([canceled, if $around == null or ($around | canceled) == 0 then 0
                else $ordered * ($around | canceled) / ($around | ordered) end] | max) as $canceled
  | if $canceled == 0 then $ordered else $ordered - $canceled end;

def product_type: .product_type // error("an item has no product_type: no order of Magento, or the event leaves it out");

def lines: (.items | map(select(.item_id != null) | {key: (.item_id | tostring), value: .}) | from_entries) as $by_id
  | [.items[] | select(product_type | IN("configurable", "bundle", "giftcard") | not)
     | $by_id[.parent_item_id | tostring] as $around
     | {sku: (.sku | text // error("an item has no SKU")), quantity: quantity($around)} | select(.quantity != 0)];

def is_of_orders: . == null
  or test("sales_order_(save|save_commit|place)_after$|[.]sales[.]api[.]order_(repository[.]save|management[.]place)$");

def entity: (try .event.data.value catch null) as $wrapped
  | if ($wrapped | type) == "object" then $wrapped elif (.value | type) == "object" then .value else . end;

if $type // (try .event.type catch null) | is_of_orders | not then empty
else
  entity
  | if .items == null then error("no order of Magento: it has no items")
    elif .state == "canceled" and is_partly_done then
      error("order \(named) was partly shipped or invoiced before it was cancelled: send order.returned for what came back")
    elif .state == "canceled" then {type: "order.cancelled", order_id: named}
    elif .state == "closed" then empty
    else lines as $lines
      | if $lines == [] then empty else {type: "order.created", order_id: named, lines: $lines} end
    end
end
