import com.fasterxml.jackson.databind.ObjectMapper;
import java.time.Duration;
import java.time.Instant;
import java.util.List;
import java.util.Map;
import java.util.stream.Stream;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * Creates an order, follows its verdict, and cancels the order again if it was accepted.
 *
 * <pre>FollowOrder ORDER_ID SKU QUANTITY</pre>
 *
 * Prints what the verifier published, a line each. Ends with 1 where something was rejected.
 */
public final class FollowOrder {
    private static final String BROKERS = setting("BROKERS", "localhost:9092");
    private static final String ORDERS = setting("ORDERS_TOPIC", "orders");
    private static final List<String> RESULTS =
            List.of(setting("ACCEPTED_TOPIC", "stock.accepted"), setting("REJECTED_TOPIC", "stock.rejected"));
    /** A verdict usually takes milliseconds. */
    private static final Duration ANSWER_LIMIT = Duration.ofSeconds(30);

    private static final ObjectMapper JSON = new ObjectMapper();

    private final KafkaConsumer<String, String> consumer;
    private final KafkaProducer<String, String> producer;

    private FollowOrder(KafkaConsumer<String, String> consumer, KafkaProducer<String, String> producer) {
        this.consumer = consumer;
        this.producer = producer;
    }

    public static void main(String[] arguments) throws Exception {
        if (arguments.length != 3) {
            System.err.println("usage: FollowOrder ORDER_ID SKU QUANTITY");
            System.exit(2);
        }
        Map<String, Object> reads = Map.of(
                ConsumerConfig.BOOTSTRAP_SERVERS_CONFIG, BROKERS,
                // Nothing is committed: a program that runs for long would be a group of its own, and commit.
                ConsumerConfig.ENABLE_AUTO_COMMIT_CONFIG, false,
                // What a crash of the verifier left behind is not shown. Java's default is to show it.
                ConsumerConfig.ISOLATION_LEVEL_CONFIG, "read_committed");
        // The default partitioner is the one that the verifier's documents ask for: an order and what follows it have one
        // key, stand on one partition, and so are decided in their order.
        Map<String, Object> writes = Map.of(ProducerConfig.BOOTSTRAP_SERVERS_CONFIG, BROKERS);
        try (var consumer = new KafkaConsumer<>(reads, new StringDeserializer(), new StringDeserializer());
                var producer = new KafkaProducer<>(writes, new StringSerializer(), new StringSerializer())) {
            boolean accepted = new FollowOrder(consumer, producer)
                    .follow(arguments[0], arguments[1], Long.parseLong(arguments[2]));
            System.exit(accepted ? 0 : 1);
        }
    }

    private boolean follow(String orderId, String sku, long quantity) throws Exception {
        // Every partition of the results, from its end on: taken before the order is sent, so that no verdict is missed.
        List<TopicPartition> partitions = RESULTS.stream()
                .flatMap(topic -> consumer.partitionsFor(topic).stream())
                .map(info -> new TopicPartition(info.topic(), info.partition()))
                .toList();
        consumer.assign(partitions);
        consumer.seekToEnd(partitions);
        partitions.forEach(consumer::position);

        var lines = List.of(Map.of("sku", sku, "quantity", quantity));
        send(orderId, Map.of("type", "order.created", "order_id", orderId, "lines", lines));
        if (!verdict(orderId, "order")) {
            return false;
        }
        send(orderId, Map.of("type", "order.cancelled", "order_id", orderId));
        return verdict(orderId, "cancellation");
    }

    /** Sends a command, keyed by its order, and waits until Kafka has it. */
    private void send(String orderId, Map<String, Object> command) throws Exception {
        producer.send(new ProducerRecord<>(ORDERS, orderId, JSON.writeValueAsString(command))).get();
    }

    /** What was published about this order: {@code about} is order or cancellation. */
    private boolean verdict(String orderId, String about) throws Exception {
        Instant deadline = Instant.now().plus(ANSWER_LIMIT);
        while (Instant.now().isBefore(deadline)) {
            for (var result : consumer.poll(Duration.ofSeconds(1))) {
                if (!orderId.equals(result.key())) {
                    continue;
                }
                String type = JSON.readTree(result.value()).path("type").asText();
                if (Stream.of("accepted", "rejected").anyMatch(end -> type.equals(about + "." + end))) {
                    System.out.println(result.value());
                    return type.endsWith(".accepted");
                }
            }
        }
        System.err.println("no verdict within " + ANSWER_LIMIT.toSeconds()
                + " s: does a verifier run? An id that was decided before is not answered again");
        System.exit(2);
        return false;
    }

    private static String setting(String name, String otherwise) {
        return System.getenv().getOrDefault(name, otherwise);
    }
}
