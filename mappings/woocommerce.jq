# WooCommerce's webhooks order.created and order.updated, each one record, with or without its HTTP headers.
#
# https://woocommerce.github.io/woocommerce-rest-api-docs/#webhooks (topics, headers X-WC-Webhook-Topic and
# X-WC-Webhook-Source), https://woocommerce.github.io/woocommerce-rest-api-docs/#order-properties (the value), and
# plugins/woocommerce/includes/wc-stock-functions.php in github.com/woocommerce/woocommerce (which status takes stock).
#
# * As in WooCommerce itself, on-hold, processing and completed take stock, once for the order's id, and cancelled gives it
#   back. pending and failed ask for nothing: the customer may still pay, and the order goes on to processing.
# * An order that goes on after it was cancelled is rejected if it never took stock, and else absorbed as a repetition: its
#   stock is not taken again. Let the shop make a new order.
# * Nor does WooCommerce give back what is deleted or put into the trash, which is where orders of long ago end. Refunds do
#   not say what came back: send order.returned for that.
# * Drafts and statuses of plugins ask for nothing. An order whose lines were edited is a dead letter.
# * A line without a SKU is known by its variation's id, else by its product's.
# * {shop} is the shop's address.

def shop: header("x-wc-webhook-source");

def named: {id: .id, shop: shop} | order_id;

def some_id: if . == null or . == 0 then null else text end;

def sku: (.sku | text) // (.variation_id | some_id) // (.product_id | some_id)
  // error("a line has no SKU, no variation and no product");

header("x-wc-webhook-topic") as $topic
| if $topic != null and ($topic | IN("order.created", "order.updated", "order.restored") | not) then
    empty
  elif .status | IN("on-hold", "processing", "completed") then
    [.line_items[] | {sku: sku, quantity}] as $lines
    | if $lines == [] then empty else {type: "order.created", order_id: named, lines: $lines} end
  elif .status == "cancelled" then
    {type: "order.cancelled", order_id: named}
  elif .status == null then
    error("no order of WooCommerce: it has no status")
  else empty end
