import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Map;
import java.util.TreeMap;
import kafka.server.KafkaConfig;
import org.apache.kafka.common.config.ConfigDef;
import org.apache.kafka.coordinator.group.GroupConfig;
import org.apache.kafka.server.config.AbstractKafkaConfig;
import org.apache.kafka.storage.internals.log.LogConfig;

/**
 * What Kafka's own validators say of options. First prints every option: side, name, type and default between tabs, then an empty
 * line. Then each line of input, {@code topic}, {@code broker} or {@code group} and pairs of name and value between tabs, is answered by a line:
 * empty when they are accepted, else why not.
 */
public class OptionChecks {
    public static void main(String[] args) throws Exception {
        tell("topic", LogConfig.configDefCopy());
        tell("broker", AbstractKafkaConfig.CONFIG_DEF);
        tell("group", GroupConfig.CONFIG_DEF);
        System.out.println();
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String[] parts = line.split("\t", -1);
            Map<String, String> given = new HashMap<>();
            if (parts[0].equals("broker")) {
                given.put("process.roles", "broker,controller");
                given.put("node.id", "0");
                given.put("listeners", "PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093");
                given.put("controller.listener.names", "CONTROLLER");
                given.put("controller.quorum.voters", "0@127.0.0.1:9093");
            }
            for (int i = 1; i + 1 < parts.length; i += 2) {
                given.put(parts[i], parts[i + 1]);
            }
            System.out.println(refusal(parts[0], given).replaceAll("\\s+", " "));
        }
    }

    private static String refusal(String side, Map<String, String> given) {
        try {
            if (side.equals("topic")) {
                LogConfig.validate(given);
            } else if (side.equals("group")) {
                // Each by itself.
                GroupConfig.CONFIG_DEF.parse(given);
            } else {
                new KafkaConfig(given, false);
            }
            return "";
        } catch (Exception e) {
            return "refused: " + e.getMessage();
        }
    }

    private static void tell(String side, ConfigDef options) {
        for (ConfigDef.ConfigKey key : new TreeMap<>(options.configKeys()).values()) {
            boolean none = key.defaultValue == ConfigDef.NO_DEFAULT_VALUE || key.defaultValue == null;
            String value = none ? "" : ConfigDef.convertToString(key.defaultValue, key.type);
            System.out.println(String.join("\t", side, key.name, key.type.toString().toLowerCase(), value));
        }
    }
}
