# Events of a transactional outbox, by Debezium's outbox event router or as rows of the outbox's table.
#
# https://debezium.io/documentation/reference/stable/transformations/outbox-event-router.html
#
# * The type is the row's, or what the router was told to make of it: a header
#   (table.fields.additional.placement=type:header:eventType) or a field beside the payload (type:envelope:eventType). It is
#   a type of the contract, or said as a class is: OrderCreated, OrderCancelled, OrderReturned. Others ask for nothing.
# * The order's id is order_id, orderId or id, else the aggregate's id: a row's aggregateid, or the key that the router
#   writes, as text or as JsonConverter has it. The key of a row is the row's own id, never the aggregate's. Lines are lines
#   or lineItems, of sku or item, and quantity. The contract's other names may be in camel case too: holdSeconds, returnId.
# * {shop} is the shop or the tenant that the payload names, of adjustments too: each id that it has is made by the template.

def no_id: error("neither the payload nor the \(if $aggregateid == null then "key" else "row" end) has the order's id");

# A key of JsonConverter's is text in quotes, a number, or, where it has schemas, an object with its payload.
def key:
  if $key == null then null
  elif $key | startswith("\"") then $key | fromjson
  elif $key | startswith("{") then
    $key | fromjson | .payload
    | if type == "string" or type == "number" then .
      else error("the key is JSON without an id: name order_id in the payload, or let the outbox event router write the key") end
  else $key end;

def named:
  {id: (if .order_id != null then .order_id
        elif .orderId != null then .orderId
        elif .id != null then .id
        elif $aggregateid != null then $aggregateid
        else key end
        | if type == "string" then trim else . end
        | if . == null or . == "" then no_id else . end),
   shop: (.shop // .tenant)} | order_id;

def kind:
  ($type // header("eventtype") // header("type") // .eventType // .type
   // error("nothing says what this is: let the router place the type in a header, eventType"))
  | {OrderCreated: "order.created", OrderPlaced: "order.created", OrderCancelled: "order.cancelled",
     OrderCanceled: "order.cancelled", OrderReturned: "order.returned"}[.] // .;

def article: if .sku == null then .item else .sku end;

def lines_of: [.[] | {sku: article, quantity, location} | known];

# The contract's names, where the payload has them in camel case alone: a hold whose length is not read is a sale.
def by_the_contracts_names:
  reduce ({return_id: "returnId", confirmation_id: "confirmationId", extension_id: "extensionId",
           adjustment_id: "adjustmentId", hold_seconds: "holdSeconds", expected_version: "expectedVersion",
           backorder_limit: "backorderLimit", order_limit: "orderLimit"} | to_entries[]) as {$key, $value}
    (.; if .[$key] == null and .[$value] != null then .[$key] = .[$value] else . end);

# The payload, where the router put other fields beside it.
def payload:
  if type == "object" and has("payload") and ([keys[] | IN("order_id", "orderId", "lines", "lineItems")] | any | not) then
    .payload | if type == "string" then fromjson else . end
  else . end;

kind as $kind
| payload
| if $kind | startswith("order.") or startswith("stock.") | not then empty
  else (.shop // .tenant) as $shop | by_the_contracts_names | ids_of($shop) end
| if $kind | IN("order.created", "order.returned") then
    {type: $kind, order_id: named, return_id, hold_seconds, policy,
     lines: (.lines // .lineItems // error("the payload has no lines") | lines_of)} | known
  elif $kind | startswith("order.") then
    . + {type: $kind, order_id: named}
    # A confirmation without lines is one of the whole hold.
    | if $kind == "order.confirmed" and .lines == null and .lineItems != null then .lines = (.lineItems | lines_of) else . end
  else . + {type: $kind} end
