import java.io.BufferedWriter;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.io.OutputStreamWriter;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.List;
import java.util.Properties;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;

/**
 * Reads partition 0 of a topic from its beginning, over restarts of the broker, until its input ends. Arguments: the topic, then
 * name=value for the consumer. A line is `record VALUE` or `error TEXT`.
 */
public class Follower {
    public static void main(String[] args) throws Exception {
        Properties config = new Properties();
        config.put("key.deserializer", StringDeserializer.class);
        config.put("value.deserializer", StringDeserializer.class);
        config.put("enable.auto.commit", "false");
        for (String pair : List.of(args).subList(1, args.length)) {
            int at = pair.indexOf('=');
            config.put(pair.substring(0, at), pair.substring(at + 1));
        }
        FileOutputStream descriptor = new FileOutputStream(FileDescriptor.out);
        try (KafkaConsumer<String, String> consumer = new KafkaConsumer<>(config);
                BufferedWriter out = new BufferedWriter(new OutputStreamWriter(descriptor, StandardCharsets.UTF_8))) {
            TopicPartition partition = new TopicPartition(args[0], 0);
            consumer.assign(List.of(partition));
            consumer.seek(partition, 0);
            Thread input = input();
            while (input.isAlive()) {
                try {
                    for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(100))) {
                        out.write("record " + record.value() + "\n");
                    }
                } catch (KafkaException e) {
                    out.write("error " + e.toString().replaceAll("\\s+", " ") + "\n");
                }
                out.flush();
            }
        }
    }

    /** Ends with the input. */
    private static Thread input() {
        Thread thread = new Thread(() -> {
            try {
                System.in.transferTo(OutputStream.nullOutputStream());
            } catch (IOException e) {
                // As good as its end.
            }
        });
        thread.setDaemon(true);
        thread.start();
        return thread;
    }
}
