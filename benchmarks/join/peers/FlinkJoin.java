import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Map;
import org.apache.flink.api.common.eventtime.WatermarkStrategy;
import org.apache.flink.api.common.functions.OpenContext;
import org.apache.flink.api.common.state.ListState;
import org.apache.flink.api.common.state.ListStateDescriptor;
import org.apache.flink.api.common.state.ValueState;
import org.apache.flink.api.common.state.ValueStateDescriptor;
import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.api.common.typeinfo.Types;
import org.apache.flink.api.java.tuple.Tuple2;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.connector.base.DeliveryGuarantee;
import org.apache.flink.connector.kafka.sink.KafkaRecordSerializationSchema;
import org.apache.flink.connector.kafka.sink.KafkaSink;
import org.apache.flink.connector.kafka.source.KafkaSource;
import org.apache.flink.connector.kafka.source.enumerator.initializer.OffsetsInitializer;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.streaming.api.datastream.DataStream;
import org.apache.flink.streaming.api.environment.StreamExecutionEnvironment;
import org.apache.flink.streaming.api.functions.co.KeyedCoProcessFunction;
import org.apache.flink.util.Collector;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.producer.ProducerRecord;

/** A left join as a Flink user writes it: state by decision id, one outcome when its timer fires. */
public final class FlinkJoin {
    private static final TypeInformation<Tuple2<String, byte[]>> EVENT =
            Types.TUPLE(Types.STRING, PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO);
    private static final TypeInformation<Tuple2<Long, byte[]>> TIMED =
            Types.TUPLE(Types.LONG, PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO);

    private FlinkJoin() {}

    public static void main(String[] given) throws Exception {
        Map<String, String> arguments = Events.arguments(given);
        StreamExecutionEnvironment environment =
                StreamExecutionEnvironment.createLocalEnvironment(configuration(arguments));
        read(environment, arguments, "decisions")
                .keyBy(event -> event.f0, Types.STRING)
                .connect(read(environment, arguments, "rewards").keyBy(event -> event.f0, Types.STRING))
                .process(new Join(arguments), EVENT)
                .sinkTo(sink(arguments));
        environment.execute();
    }

    private static Configuration configuration(Map<String, String> arguments) {
        String folder = "file://" + arguments.get("folder");
        Configuration found = new Configuration();
        found.setString("parallelism.default", arguments.get("parallelism"));
        found.setString("pipeline.object-reuse", "true");
        found.setString("pipeline.generic-types", "false");
        found.setString("state.backend.type", arguments.get("backend"));
        found.setString("state.backend.incremental", "true");
        found.setString("state.backend.rocksdb.localdir", arguments.get("folder"));
        found.setString("taskmanager.memory.managed.size", "512m");
        found.setString("execution.checkpointing.interval", "10s");
        found.setString("execution.checkpointing.dir", folder);
        found.setString("state.checkpoints.dir", folder);
        found.setString("restart-strategy.type", "none");
        return found;
    }

    private static DataStream<Tuple2<String, byte[]>> read(
            StreamExecutionEnvironment environment, Map<String, String> arguments, String log) {
        KafkaSource<Tuple2<String, byte[]>> source =
                KafkaSource.<Tuple2<String, byte[]>>builder()
                        .setBootstrapServers(arguments.get("servers"))
                        .setTopics(arguments.get(log))
                        .setGroupId(arguments.get("group"))
                        .setStartingOffsets(OffsetsInitializer.earliest())
                        .setProperty("max.poll.records", "10000")
                        .setProperty("max.partition.fetch.bytes", String.valueOf(4 << 20))
                        .setDeserializer(new Deserializer())
                        .build();
        return environment.fromSource(
                source, WatermarkStrategy.forMonotonousTimestamps(), log, EVENT);
    }

    private static KafkaSink<Tuple2<String, byte[]>> sink(Map<String, String> arguments) {
        return KafkaSink.<Tuple2<String, byte[]>>builder()
                .setBootstrapServers(arguments.get("servers"))
                .setDeliveryGuarantee(DeliveryGuarantee.AT_LEAST_ONCE)
                .setProperty("linger.ms", "100")
                .setProperty("batch.size", String.valueOf(256 << 10))
                .setProperty("buffer.memory", String.valueOf(64 << 20))
                .setProperty("compression.type", "lz4")
                .setRecordSerializer(new Serializer(arguments.get("outcomes")))
                .build();
    }

    /** Takes key and value as they are; the source adds the record's time. */
    private static final class Deserializer
            implements KafkaRecordDeserializationSchema<Tuple2<String, byte[]>> {
        @Override
        public void deserialize(
                ConsumerRecord<byte[], byte[]> record, Collector<Tuple2<String, byte[]>> out)
                throws IOException {
            String key = new String(record.key(), StandardCharsets.ISO_8859_1);
            out.collect(Tuple2.of(key, record.value()));
        }

        @Override
        public TypeInformation<Tuple2<String, byte[]>> getProducedType() {
            return EVENT;
        }
    }

    private static final class Serializer
            implements KafkaRecordSerializationSchema<Tuple2<String, byte[]>> {
        private final String topic;

        Serializer(String topic) {
            this.topic = topic;
        }

        @Override
        public ProducerRecord<byte[], byte[]> serialize(
                Tuple2<String, byte[]> outcome, KafkaSinkContext context, Long timestamp) {
            byte[] key = outcome.f0.getBytes(StandardCharsets.ISO_8859_1);
            return new ProducerRecord<>(topic, null, timestamp, key, outcome.f1);
        }
    }

    /** Keeps a decision and its rewards until its window and the grace are over. */
    private static final class Join
            extends KeyedCoProcessFunction<
                    String, Tuple2<String, byte[]>, Tuple2<String, byte[]>, Tuple2<String, byte[]>> {
        private final boolean avro;
        private final String decisionSchema;
        private final String rewardSchema;
        private final long window;
        private final long grace;
        private transient ValueState<Tuple2<Long, byte[]>> decision;
        private transient ListState<Tuple2<Long, byte[]>> rewards;
        private transient Events.Codec decisions;
        private transient Events.Codec rewarded;
        private transient Events.Codec outcomes;

        Join(Map<String, String> arguments) {
            avro = arguments.get("values").equals("avro");
            decisionSchema = arguments.get("decision_schema");
            rewardSchema = arguments.get("reward_schema");
            window = Long.parseLong(arguments.get("window_ms"));
            grace = Long.parseLong(arguments.get("grace_ms"));
        }

        @Override
        public void open(OpenContext context) {
            decision = getRuntimeContext().getState(new ValueStateDescriptor<>("decision", TIMED));
            rewards = getRuntimeContext().getListState(new ListStateDescriptor<>("rewards", TIMED));
            decisions = Events.Codec.ofEvent(decisionSchema);
            rewarded = Events.Codec.ofEvent(rewardSchema);
            outcomes = Events.Codec.ofOutcome(decisions, rewarded);
        }

        @Override
        public void processElement1(
                Tuple2<String, byte[]> event, Context context, Collector<Tuple2<String, byte[]>> out)
                throws Exception {
            decision.update(Tuple2.of(context.timestamp(), event.f1));
            context.timerService().registerEventTimeTimer(context.timestamp() + window + grace);
        }

        @Override
        public void processElement2(
                Tuple2<String, byte[]> event, Context context, Collector<Tuple2<String, byte[]>> out)
                throws Exception {
            rewards.add(Tuple2.of(context.timestamp(), event.f1));
            context.timerService().registerEventTimeTimer(context.timestamp() + window + grace);
        }

        @Override
        public void onTimer(
                long due, OnTimerContext context, Collector<Tuple2<String, byte[]>> out)
                throws Exception {
            Tuple2<Long, byte[]> waiting = decision.value();
            if (waiting == null) {
                rewards.clear(); // of a decision that is done with or that never came
            } else if (waiting.f0 + window + grace == due) {
                out.collect(Tuple2.of(context.getCurrentKey(), outcome(waiting)));
                decision.clear();
                rewards.clear();
            }
        }

        private byte[] outcome(Tuple2<Long, byte[]> waiting) throws Exception {
            byte[] first = null;
            for (Tuple2<Long, byte[]> reward : rewards.get()) {
                if (reward.f0 >= waiting.f0 && reward.f0 < waiting.f0 + window) {
                    first = reward.f1;
                    break;
                }
            }
            return avro
                    ? outcomes.write(outcomes.outcome(
                            decisions.read(waiting.f1), first == null ? null : rewarded.read(first)))
                    : Events.outcome(waiting.f1, first);
        }
    }
}
