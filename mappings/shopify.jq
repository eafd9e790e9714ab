# Shopify's webhooks orders/create, orders/cancelled and refunds/create, each one record, with or without its HTTP headers.
#
# https://shopify.dev/docs/api/webhooks (topics, headers X-Shopify-Topic and X-Shopify-Shop-Domain),
# https://shopify.dev/docs/api/admin-rest/latest/resources/order and …/resources/refund (their values).
#
# * Where no X-Shopify-Topic says what it is, the value does. Other topics ask for nothing; without that header
#   orders/updated looks like orders/create: its repetition is absorbed, an edited order is a dead letter.
# * Test orders and gift cards take no stock. A line without a SKU is known by its variant's id; one without either is no
#   article (a tip, a custom item).
# * A refund gives back what it says to restock. A cancellation gives back all that the order still has.
# * {shop} is the shop's domain.

def shop: header("x-shopify-shop-domain");

def named($id): {id: $id, shop: shop} | order_id;

def sku: (.sku | text) // (.variant_id | text);

def created:
  [.line_items[] | select(.gift_card != true) | {sku: sku, quantity} | select(.sku != null)]
  | if . == [] then empty else . end;

def restocked:
  [.refund_line_items[] | select(.restock_type | . != null and . != "no_restock")
   | {sku: (.line_item | sku), quantity} | select(.sku != null)]
  | if . == [] then empty else . end;

(header("x-shopify-topic")
  // if has("refund_line_items") then "refunds/create"
     elif .cancelled_at != null then "orders/cancelled"
     elif has("line_items") then "orders/create"
     else error("neither an order nor a refund of Shopify: no line_items, no refund_line_items") end) as $what
| if $what == "orders/create" and .test != true then
    {type: "order.created", order_id: named(.id), lines: created}
  elif $what == "orders/cancelled" and .test != true then
    {type: "order.cancelled", order_id: named(.id)}
  elif $what == "refunds/create" then
    {type: "order.returned", order_id: named(.order_id), return_id: named(.id), lines: restocked}
  else empty end
