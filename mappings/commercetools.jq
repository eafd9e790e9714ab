# commercetools' Messages, as a Subscription delivers them: OrderCreated, OrderImported and OrderStateChanged.
#
# https://docs.commercetools.com/api/projects/subscriptions (deliveries, payloadNotIncluded),
# https://docs.commercetools.com/api/projects/messages/order-messages (the messages).
#
# * The id is the order's own, not its number, which not every message has. {shop} is the project's key.
# * A variant without a SKU is known by its product's id and its own number. Custom line items have no stock.
# * Cancelled gives all back. Other states and messages ask for nothing. ReturnInfoAdded names lines by ids that only
#   commercetools knows: send order.returned instead.

def named: {id: .resource.id, shop: .projectKey} | order_id;

def sku: (.variant.sku | text) // "\(.productId)/\(.variant.id)";

if .notificationType != null and .notificationType != "Message" then empty
elif .payloadNotIncluded != null then
  error("the message came without its payload, which was too large: it says only that order \(.resource.id) changed")
elif .type | IN("OrderCreated", "OrderImported") then
  [.order.lineItems[] | {sku: sku, quantity}] as $lines
  | if $lines == [] then empty else {type: "order.created", order_id: named, lines: $lines} end
elif .type == "OrderStateChanged" and .orderState == "Cancelled" then
  {type: "order.cancelled", order_id: named}
elif .type == null then error("no message of commercetools: it has no type")
else empty end
