import java.time.Duration;
import java.util.Map;
import java.util.Properties;
import org.apache.avro.generic.GenericRecord;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.ProducerConfig;
import org.apache.kafka.common.serialization.Serde;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.errors.StreamsUncaughtExceptionHandler.StreamThreadExceptionResponse;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.JoinWindows;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.kstream.StreamJoined;
import org.apache.kafka.streams.kstream.ValueJoiner;

/** Kafka Streams' own left join of two streams, with grace. */
public final class StreamsJoin {
    private StreamsJoin() {}

    public static void main(String[] given) {
        Map<String, String> arguments = Events.arguments(given);
        StreamsBuilder builder = new StreamsBuilder();
        if (arguments.get("values").equals("avro")) {
            Events.Codec decision = Events.Codec.ofEvent(arguments.get("decision_schema"));
            Events.Codec reward = Events.Codec.ofEvent(arguments.get("reward_schema"));
            Events.Codec outcome = Events.Codec.ofOutcome(decision, reward);
            join(builder, arguments, serde(decision), serde(reward), serde(outcome), outcome::outcome);
        } else {
            Serde<byte[]> bytes = Serdes.ByteArray();
            join(builder, arguments, bytes, bytes, bytes, Events::outcome);
        }
        KafkaStreams streams = new KafkaStreams(builder.build(), properties(arguments));
        streams.setUncaughtExceptionHandler(error -> {
            error.printStackTrace();
            Runtime.getRuntime().halt(1);
            return StreamThreadExceptionResponse.SHUTDOWN_CLIENT;
        });
        Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
        streams.start();
    }

    private static <D, R, O> void join(
            StreamsBuilder builder,
            Map<String, String> arguments,
            Serde<D> decision,
            Serde<R> reward,
            Serde<O> outcome,
            ValueJoiner<D, R, O> joiner) {
        JoinWindows windows = JoinWindows.ofTimeDifferenceAndGrace(
                        Duration.ofMillis(Long.parseLong(arguments.get("window_ms"))),
                        Duration.ofMillis(Long.parseLong(arguments.get("grace_ms"))))
                .before(Duration.ZERO);
        Serde<byte[]> key = Serdes.ByteArray();
        builder.stream(arguments.get("decisions"), Consumed.with(key, decision))
                .leftJoin(
                        builder.stream(arguments.get("rewards"), Consumed.with(key, reward)),
                        joiner,
                        windows,
                        StreamJoined.with(key, decision, reward))
                .to(arguments.get("outcomes"), Produced.with(key, outcome));
    }

    private static Serde<GenericRecord> serde(Events.Codec codec) {
        return Serdes.serdeFrom(
                (topic, record) -> record == null ? null : codec.write(record),
                (topic, bytes) -> bytes == null ? null : codec.read(bytes));
    }

    private static Properties properties(Map<String, String> arguments) {
        Properties found = new Properties();
        found.put(StreamsConfig.APPLICATION_ID_CONFIG, arguments.get("group"));
        found.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, arguments.get("servers"));
        found.put(StreamsConfig.STATE_DIR_CONFIG, arguments.get("folder"));
        found.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, arguments.get("guarantee"));
        found.put(StreamsConfig.COMMIT_INTERVAL_MS_CONFIG, arguments.get("commit_ms"));
        found.put(StreamsConfig.NUM_STREAM_THREADS_CONFIG, 1); // a codec is for one thread
        found.put(StreamsConfig.BUFFERED_RECORDS_PER_PARTITION_CONFIG, 10_000);
        found.put(StreamsConfig.consumerPrefix(ConsumerConfig.AUTO_OFFSET_RESET_CONFIG), "earliest");
        found.put(StreamsConfig.consumerPrefix(ConsumerConfig.MAX_POLL_RECORDS_CONFIG), 10_000);
        found.put(
                StreamsConfig.consumerPrefix(ConsumerConfig.MAX_PARTITION_FETCH_BYTES_CONFIG), 4 << 20);
        found.put(StreamsConfig.producerPrefix(ProducerConfig.BATCH_SIZE_CONFIG), 256 << 10);
        found.put(StreamsConfig.producerPrefix(ProducerConfig.BUFFER_MEMORY_CONFIG), 64 << 20);
        found.put(StreamsConfig.producerPrefix(ProducerConfig.COMPRESSION_TYPE_CONFIG), "lz4");
        return found;
    }
}
