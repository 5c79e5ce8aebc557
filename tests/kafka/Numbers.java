import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.connect.connector.Task;
import org.apache.kafka.connect.data.Schema;
import org.apache.kafka.connect.source.ExactlyOnceSupport;
import org.apache.kafka.connect.source.SourceConnector;
import org.apache.kafka.connect.source.SourceRecord;
import org.apache.kafka.connect.source.SourceTask;

/** A source for Connect: its task n writes 0, 1, 2, ... to partition n of `topic`, and goes on after the offset that is stored. */
public class Numbers extends SourceConnector {
    private Map<String, String> config;

    @Override
    public String version() {
        return "1";
    }

    @Override
    public void start(Map<String, String> config) {
        this.config = config;
    }

    @Override
    public void stop() {
    }

    @Override
    public ConfigDef config() {
        return new ConfigDef().define("topic", ConfigDef.Type.STRING, ConfigDef.Importance.HIGH, "Where the numbers go.");
    }

    @Override
    public ExactlyOnceSupport exactlyOnceSupport(Map<String, String> config) {
        return ExactlyOnceSupport.SUPPORTED;
    }

    @Override
    public Class<? extends Task> taskClass() {
        return Counting.class;
    }

    @Override
    public List<Map<String, String>> taskConfigs(int count) {
        List<Map<String, String>> tasks = new ArrayList<>();
        for (int n = 0; n < count; n++) {
            Map<String, String> task = new HashMap<>(config);
            task.put("number", "" + n);
            tasks.add(task);
        }
        return tasks;
    }

    public static class Counting extends SourceTask {
        private Map<String, String> partition;
        private String topic;
        private int number;
        private long next;

        @Override
        public String version() {
            return "1";
        }

        @Override
        public void start(Map<String, String> config) {
            topic = config.get("topic");
            number = Integer.parseInt(config.get("number"));
            partition = Map.of("number", "" + number);
            Map<String, Object> offset = context.offsetStorageReader().offset(partition);
            next = offset == null ? 0 : (Long) offset.get("next");
        }

        @Override
        public void stop() {
        }

        @Override
        public List<SourceRecord> poll() throws InterruptedException {
            TimeUnit.MILLISECONDS.sleep(20);
            List<SourceRecord> records = new ArrayList<>();
            for (int n = 0; n < 10; n++) {
                String value = "" + next++;
                records.add(new SourceRecord(partition, Map.of("next", next), topic, number, null, null, Schema.STRING_SCHEMA, value));
            }
            return records;
        }
    }
}
