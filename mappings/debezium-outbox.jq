# Events of a transactional outbox, by Debezium's outbox event router or as rows of the outbox's table.
#
# https://debezium.io/documentation/reference/stable/transformations/outbox-event-router.html
#
# * The type is the row's, or what the router was told to make of it: a header
#   (table.fields.additional.placement=type:header:eventType) or a field beside the payload (type:envelope:eventType). It is
#   a type of the contract, or said as a class is: OrderCreated, OrderCancelled, OrderReturned. Others ask for nothing.
# * The order's id is order_id, orderId or id, else the record's key, which is the aggregate's id. Lines are lines or
#   lineItems, of sku or item, and quantity.
# * {shop} is the shop or the tenant that the payload names.

def named: {id: ((.order_id // .orderId // .id // $key) | text // error("neither the payload nor the key has the order's id")),
            shop: (.shop // .tenant)} | order_id;

def kind:
  ($type // header("eventtype") // header("type") // .eventType // .type
   // error("nothing says what this is: let the router place the type in a header, eventType"))
  | {OrderCreated: "order.created", OrderPlaced: "order.created", OrderCancelled: "order.cancelled",
     OrderCanceled: "order.cancelled", OrderReturned: "order.returned"}[.] // .;

def article: if .sku == null then .item else .sku end;

# The payload, where the router put other fields beside it.
def payload:
  if type == "object" and has("payload") and ([keys[] | IN("order_id", "orderId", "lines", "lineItems")] | any | not) then
    .payload | if type == "string" then fromjson else . end
  else . end;

kind as $kind
| payload
| if $kind | startswith("order.") or startswith("stock.") | not then empty
  elif $kind | IN("order.created", "order.returned") then
    {type: $kind, order_id: named, return_id: (.return_id // .returnId), hold_seconds, policy,
     lines: [(.lines // .lineItems // error("the payload has no lines"))[]
             | {sku: article, quantity, location} | known]} | known
  elif $kind | startswith("order.") then . + {type: $kind, order_id: named}
  else . + {type: $kind} end
