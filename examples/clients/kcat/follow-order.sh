#!/usr/bin/env bash
# Creates an order, follows its verdict, and cancels the order again if it was accepted: with kcat alone.
#
#   follow-order.sh ORDER_ID SKU QUANTITY
#
# Prints what the verifier published, a line each. Ends with 1 where something was rejected. For ids and SKUs that JSON
# takes as they are: no quotes, no backslashes.
set -euo pipefail

[ $# -eq 3 ] || { echo "usage: follow-order.sh ORDER_ID SKU QUANTITY" >&2; exit 2; }
ORDER=$1 SKU=$2 QUANTITY=$3
BROKERS=${BROKERS:-localhost:9092}
ORDERS_TOPIC=${ORDERS_TOPIC:-orders}
RESULTS=("${ACCEPTED_TOPIC:-stock.accepted}" "${REJECTED_TOPIC:-stock.rejected}")
ANSWER_LIMIT=30 # seconds; a verdict usually takes milliseconds
# Results are looked for from here on. A minute early, since clocks differ.
SINCE=$(($(date +%s%3N) - 60000))

# send COMMAND : keyed by its order. murmur2_random is the partitioner of Kafka's own clients; kcat's default is another.
# With one for all producers an order and what follows it stand on one partition, and so are decided in their order.
send() {
  printf '%s\t%s\n' "$ORDER" "$1" |
    kcat -P -b "$BROKERS" -t "$ORDERS_TOPIC" -K $'\t' -X partitioner=murmur2_random -X enable.idempotence=true
}

# verdict ABOUT : what was published about the order; ABOUT is order or cancellation. read_committed: what a crash of the
# verifier left behind is not shown.
verdict() {
  local deadline=$((SECONDS + ANSWER_LIMIT)) topic found
  while [ $SECONDS -lt $deadline ]; do
    for topic in "${RESULTS[@]}"; do
      found=$(kcat -C -q -e -b "$BROKERS" -t "$topic" -o "s@$SINCE" -X isolation.level=read_committed -f '%k\t%s\n' |
        awk -F '\t' -v order="$ORDER" -v kind="{\"type\":\"$1." '$1 == order && index($2, kind) == 1 { print $2 }')
      [ -n "$found" ] || continue
      printf '%s\n' "$found"
      [[ $found == "{\"type\":\"$1.accepted\""* ]]
      return
    done
  done
  echo "no verdict within $ANSWER_LIMIT s: does a verifier run?" >&2
  exit 2
}

send "{\"type\":\"order.created\",\"order_id\":\"$ORDER\",\"lines\":[{\"sku\":\"$SKU\",\"quantity\":$QUANTITY}]}"
verdict order || exit 1
send "{\"type\":\"order.cancelled\",\"order_id\":\"$ORDER\"}"
verdict cancellation || exit 1
