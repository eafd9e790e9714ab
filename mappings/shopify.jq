# Shopify's webhooks orders/create, orders/cancelled and refunds/create, each one record, with or without its HTTP headers.
#
# https://shopify.dev/docs/api/webhooks (topics, headers X-Shopify-Topic and X-Shopify-Shop-Domain),
# https://shopify.dev/docs/api/admin-rest/latest/resources/order and …/resources/refund (their values).
#
# * Subscribe to all three: what a refund restocks, only refunds/create says.
# * Where no X-Shopify-Topic says what it is, the value does. Other topics ask for nothing; without that header
#   orders/updated looks like orders/create: its repetition is absorbed, an edited order is a dead letter.
# * Test orders, gift cards and orders that come in cancelled take no stock. Of a line, quantity counts: what was ordered;
#   current_quantity is what later refunds and edits left of it. A line without a SKU is known by its variant's id; one
#   without either is no article (a tip, a custom item).
# * A refund gives back what it says to restock (restock_type cancel, return and legacy_restock).
# * A cancellation gives back all that the order still has, unless one of its refunds did not restock (no_restock): then
#   the refunds alone say what came back.
# * An edit names lines by ids that only Shopify knows. One that adds pieces is a dead letter: send an order of its own
#   for them. What an edit removes comes back by a refund.
# * {shop} is the shop's domain.

def shop: header("x-shopify-shop-domain");

def named($id): {id: $id, shop: shop} | order_id;

def sku: (.sku | text) // (.variant_id | text);

def created:
  [.line_items[] | select(.gift_card != true) | {sku: sku, quantity} | select(.sku != null)]
  | if . == [] then empty else . end;

def restocks: .restock_type | . != null and . != "no_restock";

def restocked:
  [.refund_line_items[] | select(restocks and .line_item.gift_card != true)
   | {sku: (.line_item | sku), quantity} | select(.sku != null)]
  | if . == [] then empty else . end;

(header("x-shopify-topic")
  // if has("refund_line_items") then "refunds/create"
     elif has("order_edit") then "orders/edited"
     elif .cancelled_at != null then "orders/cancelled"
     elif has("line_items") then "orders/create"
     else error("neither an order nor a refund of Shopify: no line_items, no refund_line_items") end) as $what
| if $what == "orders/create" and .test != true and .cancelled_at == null then
    {type: "order.created", order_id: named(.id), lines: created}
  elif $what == "orders/cancelled" and .test != true
    and all(.refunds[]?.refund_line_items[]?; .restock_type != "no_restock") then
    {type: "order.cancelled", order_id: named(.id)}
  elif $what == "refunds/create" then
    {type: "order.returned", order_id: named(.order_id), return_id: named(.id // error("the refund has no id")),
     lines: restocked}
  elif $what == "orders/edited" and .order_edit.line_items.additions != [] then
    error("order \(.order_edit.order_id) was edited, and has more pieces now: send an order of its own for them")
  else empty end
