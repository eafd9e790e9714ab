# WooCommerce's webhooks order.created, order.updated and order.deleted, each one record, with or without its HTTP headers.
#
# https://woocommerce.github.io/woocommerce-rest-api-docs/#webhooks (topics, headers X-WC-Webhook-Topic and
# X-WC-Webhook-Source), https://woocommerce.github.io/woocommerce-rest-api-docs/#order-properties (the value).
#
# * The status says what an order asks for: pending, processing, on-hold and completed take stock, once for its id;
#   cancelled, failed and trash give it back. Drafts ask for nothing. Nor do refunds, which do not say what came back:
#   send order.returned for that.
# * A line without a SKU is known by its variation's id, else by its product's.
# * {shop} is the shop's address.

def shop: header("x-wc-webhook-source");

def named: {id: .id, shop: shop} | order_id;

def some_id: if . == null or . == 0 then null else text end;

def sku: (.sku | text) // (.variation_id | some_id) // (.product_id | some_id)
  // error("a line has no SKU, no variation and no product");

header("x-wc-webhook-topic") as $topic
| if $topic == "order.deleted" then
    {type: "order.cancelled", order_id: named}
  elif $topic != null and ($topic | IN("order.created", "order.updated", "order.restored") | not) then
    empty
  elif .status | IN("pending", "processing", "on-hold", "completed") then
    [.line_items[] | {sku: sku, quantity}] as $lines
    | if $lines == [] then empty else {type: "order.created", order_id: named, lines: $lines} end
  elif .status | IN("cancelled", "failed", "trash") then
    {type: "order.cancelled", order_id: named}
  elif .status == null then
    error("no order of WooCommerce: it has no status")
  else empty end
