# What the mappings that are built in share.

# A header's value, whatever the case of its name; null where there is none.
def header($name): [$headers | to_entries[] | select(.key | ascii_downcase == $name) | .value] | last;

# A value as text without spaces around it; null where nothing is left.
def text: if . == null then null else tostring | trim | if . == "" then null else . end end;

# A number, as it is or in a string: it keeps its digits.
def number: if type == "string" then trim | tonumber else . end;

# An object without those fields that are null.
def known: with_entries(select(.value != null));

# What an order is called: {id}, or what --mapping …?id=… says, of an object with id and shop.
def order_id: "\(.id)";
