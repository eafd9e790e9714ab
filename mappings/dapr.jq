# Commands of the contract that were published by Dapr's pub/sub, which puts each into a CloudEvent of its own type.
#
# https://docs.dapr.io/developing-applications/building-blocks/pubsub/pubsub-cloudevents/
#
# * The type is the data's own, else the one given when publishing (metadata cloudevent.type).
# * With {shop} in the id, the data names its shop, of adjustments too: each id that it has is made by the template.
# * An order_id that is missing or null is the contract's to refuse.

def named: {id: .order_id, shop: .shop} | order_id;

if type != "object" then error("the data is no JSON object: publish with content type application/json")
elif .type == null and ($type == null or ($type | startswith("com.dapr."))) then
  error("nothing says what this is: give the data a type, or publish with metadata cloudevent.type")
else
  . + {type: (.type // $type)} | if .order_id != null then .order_id = named else . end
  | .shop as $shop | ids_of($shop) | del(.shop)
end
