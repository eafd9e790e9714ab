// Creates an order, follows its verdict, and cancels the order again if it was accepted.
//
//   node follow-order.mjs ORDER_ID SKU QUANTITY
//
// Prints what the verifier published, a line each. Ends with 1 where something was rejected.

import { randomUUID } from 'node:crypto'
import { env, exit, argv } from 'node:process'

import {
  Consumer,
  FetchIsolationLevels,
  MessagesStreamModes,
  ProduceAcks,
  Producer,
  compatibilityPartitioner,
  stringDeserializers,
  stringSerializers
} from '@platformatic/kafka'

const bootstrapBrokers = (env.BROKERS ?? 'localhost:9092').split(',')
const orders = env.ORDERS_TOPIC ?? 'orders'
const results = [env.ACCEPTED_TOPIC ?? 'stock.accepted', env.REJECTED_TOPIC ?? 'stock.rejected']
const answerLimit = 30_000 // milliseconds; a verdict usually takes a few

const [orderId, sku, quantity] = argv.slice(2)
if (argv.length !== 5) {
  console.error('usage: node follow-order.mjs ORDER_ID SKU QUANTITY')
  exit(2)
}

const timer = setTimeout(() => {
  console.error('no verdict within 30 s: does a verifier run? An id that was decided before is not answered again')
  exit(2)
}, answerLimit)

const producer = new Producer({
  clientId: 'follow-order',
  bootstrapBrokers,
  serializers: stringSerializers,
  // As Kafka's own clients do it; this library's default is another. With one partitioner for all producers an order and
  // what follows it stand on one partition, and so are decided in their order.
  partitioner: compatibilityPartitioner,
  idempotent: true,
  acks: ProduceAcks.ALL
})
const consumer = new Consumer({
  clientId: 'follow-order',
  // This library reads as a group only. One of its own, that commits nothing.
  groupId: `follow-order-${randomUUID()}`,
  bootstrapBrokers,
  deserializers: stringDeserializers,
  autocommit: false,
  // What a crash of the verifier left behind is not shown.
  isolationLevel: FetchIsolationLevels.READ_COMMITTED
})

// Sends a command, keyed by its order.
async function send (command) {
  await producer.send({ messages: [{ topic: orders, key: command.order_id, value: JSON.stringify(command) }] })
}

// What was published about this order: `about` is order or cancellation.
async function verdict (stream, about) {
  for await (const message of stream) {
    if (message.key !== orderId) continue
    const { type } = JSON.parse(message.value)
    if (type !== `${about}.accepted` && type !== `${about}.rejected`) continue
    console.log(message.value)
    return type === `${about}.accepted`
  }
}

// Every partition of the results, from its end on: taken before the order is sent, so that no verdict is missed.
const ends = await consumer.listOffsets({ topics: results })
const offsets = [...ends].flatMap(([topic, ends]) => ends.map((offset, partition) => ({ topic, partition, offset })))
const stream = await consumer.consume({ topics: results, mode: MessagesStreamModes.MANUAL, offsets })
// Looked through twice: leaving a loop over the stream itself would end it.
const iterator = stream[Symbol.asyncIterator]()
const messages = { [Symbol.asyncIterator]: () => ({ next: () => iterator.next() }) }

let accepted = false
await send({ type: 'order.created', order_id: orderId, lines: [{ sku, quantity: Number(quantity) }] })
if (await verdict(messages, 'order')) {
  await send({ type: 'order.cancelled', order_id: orderId })
  accepted = await verdict(messages, 'cancellation')
}
clearTimeout(timer)
await stream.close()
await consumer.close()
await producer.close()
exit(accepted ? 0 : 1)
