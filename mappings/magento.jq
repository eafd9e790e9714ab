# Orders of Magento and Adobe Commerce: as its REST API gives them, or as events of Adobe I/O
# (observer.sales_order_save_after, observer.sales_order_place_after and the like).
#
# https://developer.adobe.com/commerce/webapi/rest/ (sales/v1 orders: items, state),
# https://developer.adobe.com/commerce/extensibility/events/ (CloudEvents with the entity in data.value; numbers are text).
#
# * Stock is taken of simple, virtual and downloadable items: children, not the configurable or bundle around them, which
#   have no stock of their own. Of each, what was ordered less what was cancelled.
# * state canceled gives all back. closed (refunded) asks for nothing: it does not say what came back.
# * An order that is partly cancelled later is other content under the same id, so a dead letter: send order.returned.
# * The id is the increment id, {shop} the store's id.

def named: {id: (.increment_id // .entity_id // error("an order of Magento has an increment_id")), shop: .store_id} | order_id;

def quantity: (.qty_ordered | number) as $ordered | ((.qty_canceled // 0) | number) as $canceled
  | if $canceled == 0 then $ordered else $ordered - $canceled end;

def lines: [.items[] | select(.product_type | IN("configurable", "bundle", "giftcard") | not)
  | {sku: (.sku | text // error("an item has no SKU")), quantity: quantity} | select(.quantity != 0)];

if $type != null and ($type | contains("sales_order") | not) then empty
else
  (if (.event.data.value? | type) == "object" then .event.data.value elif (.value? | type) == "object" then .value else . end)
  | if .items == null then error("no order of Magento: it has no items")
    elif .state == "canceled" then {type: "order.cancelled", order_id: named}
    elif .state == "closed" then empty
    else lines as $lines
      | if $lines == [] then empty else {type: "order.created", order_id: named, lines: $lines} end
    end
end
