import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.file.Path;
import java.util.HashMap;
import java.util.Map;
import org.apache.avro.Schema;
import org.apache.avro.SchemaBuilder;
import org.apache.avro.generic.GenericData;
import org.apache.avro.generic.GenericDatumReader;
import org.apache.avro.generic.GenericDatumWriter;
import org.apache.avro.generic.GenericRecord;
import org.apache.avro.io.BinaryDecoder;
import org.apache.avro.io.BinaryEncoder;
import org.apache.avro.io.DecoderFactory;
import org.apache.avro.io.EncoderFactory;

/** The benchmark's events and outcomes, as bytes or as Avro; what both Java peers share. */
final class Events {
    /** Length of Avro's single-object header, which every event begins with. */
    private static final int HEADER = 10;

    private Events() {}

    /** Reads arguments of the form name=value. */
    static Map<String, String> arguments(String[] given) {
        Map<String, String> found = new HashMap<>();
        for (String argument : given) {
            String[] parts = argument.split("=", 2);
            found.put(parts[0], parts[1]);
        }
        return found;
    }

    /** Gives an outcome without looking into the events: whether there is a reward, it, the decision. */
    static byte[] outcome(byte[] decision, byte[] reward) {
        int rewardLength = reward == null ? 0 : reward.length;
        byte[] outcome = new byte[3 + rewardLength + decision.length];
        outcome[0] = (byte) (reward == null ? 0 : 1);
        outcome[1] = (byte) (rewardLength >> 8);
        outcome[2] = (byte) rewardLength;
        if (reward != null) {
            System.arraycopy(reward, 0, outcome, 3, rewardLength);
        }
        System.arraycopy(decision, 0, outcome, 3 + rewardLength, decision.length);
        return outcome;
    }

    /** One kind of record: reads and writes its Avro; for one thread. */
    static final class Codec {
        final Schema schema;
        private final int header;
        private final byte[] fingerprint;
        private final GenericDatumReader<GenericRecord> reader;
        private final GenericDatumWriter<GenericRecord> writer;
        private final ByteArrayOutputStream buffer = new ByteArrayOutputStream(512);
        private BinaryDecoder decoder;
        private BinaryEncoder encoder;

        private Codec(Schema schema, int header) {
            this.schema = schema;
            this.header = header;
            this.fingerprint = new byte[header];
            this.reader = new GenericDatumReader<>(schema);
            this.writer = new GenericDatumWriter<>(schema);
        }

        static Codec ofEvent(String file) {
            try {
                return new Codec(new Schema.Parser().parse(Path.of(file).toFile()), HEADER);
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
        }

        /** An outcome: its first byte tells whether there is a reward. */
        static Codec ofOutcome(Codec decision, Codec reward) {
            Schema schema =
                    SchemaBuilder.record("Outcome").fields()
                            .requiredBoolean("joined")
                            .name("reward").type().optional().type(reward.schema)
                            .name("decision").type(decision.schema).noDefault()
                            .endRecord();
            return new Codec(schema, 0);
        }

        GenericRecord read(byte[] frame) {
            try {
                System.arraycopy(frame, 0, fingerprint, 0, header);
                decoder = DecoderFactory.get()
                        .binaryDecoder(frame, header, frame.length - header, decoder);
                return reader.read(null, decoder);
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
        }

        byte[] write(GenericRecord record) {
            try {
                buffer.reset();
                buffer.write(fingerprint, 0, header);
                encoder = EncoderFactory.get().binaryEncoder(buffer, encoder);
                writer.write(record, encoder);
                encoder.flush();
                return buffer.toByteArray();
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
        }

        /** Gives an outcome of records. */
        GenericRecord outcome(GenericRecord decision, GenericRecord reward) {
            GenericRecord outcome = new GenericData.Record(schema);
            outcome.put("joined", reward != null);
            outcome.put("reward", reward);
            outcome.put("decision", decision);
            return outcome;
        }
    }
}
