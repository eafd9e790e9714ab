# commercetools' Messages, as a Subscription delivers them: OrderCreated, OrderImported and OrderStateChanged.
#
# https://docs.commercetools.com/api/projects/subscriptions (deliveries in the platform's format or as CloudEvents,
# payloadNotIncluded), https://docs.commercetools.com/api/projects/messages/order-messages (the messages),
# https://docs.commercetools.com/api/projects/carts#lineitem (lines).
#
# * OrderCreatedFromRecurringOrder comes in OrderCreated's place for orders by a schedule, and is read like it.
# * The id is the order's own, not its number, which not every message has. {shop} is the project's key.
# * A variant without a SKU is known by its product's id and its own number. Gifts count. Custom line items have no stock.
# * commercetools keeps stock by SKU and supply channel: a line's supply channel, by its id, is its location. A line without
#   one is of the default location.
# * Cancelled gives all back, and what is imported as cancelled takes nothing. Other states and messages ask for nothing.
# * OrderLineItemAdded is a dead letter: an order's lines stand under its id, so send an order of its own for it.
#   OrderLineItemRemoved and ReturnInfoAdded name lines by ids that only commercetools knows: send order.returned instead.

def named: {id: .resource.id, shop: .projectKey} | order_id;

def sku: (.variant.sku | text)
  // if .variant.id == null then error("a line has neither a SKU nor a variant's number")
     else "\(.productId)/\(.variant.id)" end;

def creates: IN("OrderCreated", "OrderCreatedFromRecurringOrder", "OrderImported");

if .notificationType != null and .notificationType != "Message" then empty
elif .payloadNotIncluded != null then
  if .payloadNotIncluded.payloadType | . == null or creates or IN("OrderStateChanged", "OrderLineItemAdded") then
    error("the message came without its payload, which was too large: it says only that order \(.resource.id) changed")
  else empty end
elif .type | creates then
  [.order.lineItems[] | {sku: sku, quantity, location: .supplyChannel.id} | known] as $lines
  | if $lines == [] or .order.orderState == "Cancelled" then empty
    else {type: "order.created", order_id: named, lines: $lines} end
elif .type == "OrderStateChanged" and .orderState == "Cancelled" then
  {type: "order.cancelled", order_id: named}
elif .type == "OrderLineItemAdded" then
  error("order \(.resource.id) was edited, and has \(.addedQuantity) more of \(.lineItem | sku): "
        + "send an order of its own for them")
elif .type == null then error("no message of commercetools: it has no type")
else empty end
