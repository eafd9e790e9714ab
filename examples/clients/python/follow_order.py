#!/usr/bin/env python3
"""Creates an order, follows its verdict, and cancels the order again if it was accepted.

    follow_order.py ORDER_ID SKU QUANTITY

Prints what the verifier published, a line each. Ends with 1 where something was rejected.
"""

import json
import os
import sys
import time

from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition

BROKERS = os.environ.get("BROKERS", "localhost:9092")
ORDERS = os.environ.get("ORDERS_TOPIC", "orders")
RESULTS = [os.environ.get("ACCEPTED_TOPIC", "stock.accepted"), os.environ.get("REJECTED_TOPIC", "stock.rejected")]
ANSWER_LIMIT = 30  # seconds; a verdict usually takes milliseconds


def partitions_from_now(consumer):
    """Every partition of the results, from its end on: taken before the order is sent, so that no verdict is missed."""
    there = consumer.list_topics(timeout=ANSWER_LIMIT).topics
    for topic in RESULTS:
        for partition in there[topic].partitions:
            at = TopicPartition(topic, partition)
            _, at.offset = consumer.get_watermark_offsets(at, timeout=ANSWER_LIMIT)
            yield at


def send(producer, command):
    """Sends a command, keyed by its order, and waits until Kafka has it."""
    failed = []
    producer.produce(
        ORDERS,
        key=command["order_id"],
        value=json.dumps(command),
        on_delivery=lambda error, _: failed.append(error) if error else None,
    )
    if producer.flush(ANSWER_LIMIT) > 0:
        sys.exit(f"Kafka did not take the {command['type']} within {ANSWER_LIMIT} s")
    if failed:
        raise KafkaException(failed[0])


def verdict(consumer, order_id, about):
    """What was published about this order: `about` is order or cancellation."""
    deadline = time.monotonic() + ANSWER_LIMIT
    while time.monotonic() < deadline:
        message = consumer.poll(1.0)
        if message is None:
            continue
        if message.error():
            raise KafkaException(message.error())
        if message.key() != order_id.encode():
            continue
        event = json.loads(message.value())
        if event["type"] in (f"{about}.accepted", f"{about}.rejected"):
            print(message.value().decode(), flush=True)
            return event["type"].endswith(".accepted")
    sys.exit(f"no verdict within {ANSWER_LIMIT} s: does a verifier run? An id that was decided before is not answered again")


def main():
    if len(sys.argv) != 4:
        sys.exit("usage: follow_order.py ORDER_ID SKU QUANTITY")
    order_id, sku, quantity = sys.argv[1], sys.argv[2], int(sys.argv[3])
    consumer = Consumer(
        {
            "bootstrap.servers": BROKERS,
            # Nothing is committed: a program that runs for long would be a group of its own, and commit.
            "group.id": "follow-order",
            "enable.auto.commit": False,
            # What a crash of the verifier left behind is not shown.
            "isolation.level": "read_committed",
        }
    )
    producer = Producer(
        {
            "bootstrap.servers": BROKERS,
            # As Kafka's own clients do it; librdkafka's default is another. With one partitioner for all producers an
            # order and what follows it stand on one partition, and so are decided in their order.
            "partitioner": "murmur2_random",
            "enable.idempotence": True,
        }
    )
    consumer.assign(list(partitions_from_now(consumer)))
    try:
        lines = [{"sku": sku, "quantity": quantity}]
        send(producer, {"type": "order.created", "order_id": order_id, "lines": lines})
        if not verdict(consumer, order_id, "order"):
            return 1
        send(producer, {"type": "order.cancelled", "order_id": order_id})
        return 0 if verdict(consumer, order_id, "cancellation") else 1
    finally:
        consumer.close()


if __name__ == "__main__":
    sys.exit(main())
