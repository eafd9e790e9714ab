# What the mappings that are built in share.

# A header's value, whatever the case of its name; null where there is none.
def header($name): [$headers | to_entries[] | select(.key | ascii_downcase == $name) | .value] | last;

# A value as text without spaces around it; null where nothing is left.
def text: if . == null then null else tostring | trim | if . == "" then null else . end end;

# A number, as it is or in a string: it keeps its digits.
def number: if type == "string" then trim | tonumber else . end;

# An object without those fields that are null.
def known: with_entries(select(.value != null));

# What an id is made of: text, or a whole number with every digit of it. Nothing else is an id, nor a part of one.
def id_text($missing):
  if . == null or . == "" then error($missing)
  elif type == "string" then .
  elif type == "number" and (tostring | ltrimstr("-") | explode) - ("0123456789" | explode) == [] then tostring
  else error("an id is made of text and whole numbers, not of \(tojson)") end;

def id: .id | id_text("the order has no id");
def shop_of_id: .shop | id_text("nothing says which shop this is of, and ids are made of that");

# What an order is called: {id}, or what --mapping …?id=… says, of an object with id and shop.
def order_id: "\(id)";

# The ids of what follows an order, and of adjustments, made as an order's is: those of two shops may be one.
def ids_of($shop): reduce ("return_id", "confirmation_id", "extension_id", "adjustment_id") as $name
  (.; if .[$name] | . == null or . == "" then . else .[$name] = ({id: .[$name], shop: $shop} | order_id) end);
