import java.io.BufferedReader;
import java.io.FileDescriptor;
import java.io.FileOutputStream;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.regex.Pattern;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.SubscriptionPattern;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.FencedInstanceIdException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;

/**
 * Members of consumer groups, each a thread of this process; tests/integration/support/members.py tells what goes in and out.
 * A line is one write, so that what was told before a kill -9 is whole; a batch is told before it is committed.
 */
public class GroupMember implements Runnable, ConsumerRebalanceListener {
    private static final FileOutputStream OUT = new FileOutputStream(FileDescriptor.out);
    private static final Map<String, GroupMember> MEMBERS = new ConcurrentHashMap<>();

    private final String name;
    private final String topics;
    private final String commit;
    private final Duration every;
    private final Properties config;
    private final Map<TopicPartition, Long> uncommitted = new HashMap<>();
    private final Set<TopicPartition> own = new HashSet<>();
    private KafkaConsumer<byte[], byte[]> consumer;
    private volatile boolean stopped;

    public static void main(String[] args) throws Exception {
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        List<Thread> threads = new ArrayList<>();
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String[] words = line.split("\t");
            if (words[0].equals("start")) {
                GroupMember member = new GroupMember(words);
                MEMBERS.put(member.name, member);
                Thread thread = new Thread(member, member.name);
                threads.add(thread);
                thread.start();
            } else {
                MEMBERS.get(words[1]).stopped = true;
            }
        }
        MEMBERS.values().forEach(m -> m.stopped = true);
        for (Thread thread : threads) {
            thread.join();
        }
    }

    private GroupMember(String[] words) {
        name = words[1];
        topics = words[2];
        commit = words[3];
        every = Duration.ofMillis(Long.parseLong(words[4]));
        config = new Properties();
        config.put("enable.auto.commit", commit.equals("auto"));
        config.put("allow.auto.create.topics", "false");
        config.put("key.deserializer", ByteArrayDeserializer.class);
        config.put("value.deserializer", ByteArrayDeserializer.class);
        for (String pair : Arrays.asList(words).subList(5, words.length)) {
            int at = pair.indexOf('=');
            config.put(pair.substring(0, at), pair.substring(at + 1));
        }
    }

    @Override
    public void run() {
        try {
            consumer = new KafkaConsumer<>(config);
            tell("joining", "");
            subscribe();
            long committed = System.nanoTime();
            while (!stopped) {
                took(consumer.poll(Duration.ofMillis(50)));
                if (System.nanoTime() - committed > every.toNanos()) {
                    commit(null);
                    committed = System.nanoTime();
                }
            }
            commit(null);
            consumer.close();
            tell("closed", "");
        } catch (Throwable e) {
            tell("error", ",\"error\":" + quoted(e.toString()));
            if (consumer != null) {
                consumer.close();
            }
        }
    }

    private void subscribe() {
        if (topics.startsWith("~")) {
            consumer.subscribe(new SubscriptionPattern(topics.substring(1)), this);
        } else if (topics.startsWith("^")) {
            consumer.subscribe(Pattern.compile(topics), this);
        } else {
            consumer.subscribe(List.of(topics.split(",")), this);
        }
    }

    /** Tells what came as ranges of offsets without a hole. */
    private void took(ConsumerRecords<byte[], byte[]> records) {
        List<String> ranges = new ArrayList<>();
        for (TopicPartition tp : records.partitions()) {
            long first = -1;
            long last = -1;
            for (ConsumerRecord<byte[], byte[]> record : records.records(tp)) {
                if (first >= 0 && record.offset() != last + 1) {
                    ranges.add(range(tp, first, last));
                    first = record.offset();
                }
                first = first < 0 ? record.offset() : first;
                last = record.offset();
            }
            ranges.add(range(tp, first, last));
            uncommitted.put(tp, last + 1);
        }
        if (!ranges.isEmpty()) {
            tell("batch", ",\"r\":[" + String.join(",", ranges) + "]");
        }
    }

    /** Commits what was told of `which`, of all when null. */
    private void commit(Collection<TopicPartition> which) {
        Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
        uncommitted.forEach((tp, at) -> {
            if (which == null || which.contains(tp)) {
                offsets.put(tp, new OffsetAndMetadata(at));
            }
        });
        uncommitted.keySet().removeAll(offsets.keySet());
        if (offsets.isEmpty() || commit.equals("auto") || commit.equals("none")) {
            return;
        }
        if (commit.equals("async") && which == null && !stopped) {
            consumer.commitAsync(offsets, (done, error) -> committed(offsets, error));
            return;
        }
        try {
            consumer.commitSync(offsets, Duration.ofSeconds(10));
            committed(offsets, null);
        } catch (FencedInstanceIdException e) {
            throw e;
        } catch (RuntimeException e) {
            committed(offsets, e);
        }
    }

    private void committed(Map<TopicPartition, OffsetAndMetadata> offsets, Exception error) {
        if (error != null) {
            // To be committed the next time, unless the partition is another's by now.
            offsets.forEach((tp, at) -> {
                if (own.contains(tp)) {
                    uncommitted.putIfAbsent(tp, at.offset());
                }
            });
            tell("commit_failed", ",\"error\":" + quoted(error.toString()));
            return;
        }
        List<String> parts = new ArrayList<>();
        offsets.forEach((tp, at) -> parts.add("[\"" + tp.topic() + "\"," + tp.partition() + "," + at.offset() + "]"));
        tell("committed", ",\"o\":[" + String.join(",", parts) + "]");
    }

    @Override
    public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
        own.addAll(partitions);
        tell("assigned", list(partitions));
    }

    @Override
    public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
        commit(partitions);
        forget(partitions);
        tell("revoked", list(partitions));
    }

    @Override
    public void onPartitionsLost(Collection<TopicPartition> partitions) {
        forget(partitions);
        tell("lost", list(partitions));
    }

    private void forget(Collection<TopicPartition> partitions) {
        uncommitted.keySet().removeAll(partitions);
        own.removeAll(partitions);
    }

    private static String range(TopicPartition tp, long first, long last) {
        return "[\"" + tp.topic() + "\"," + tp.partition() + "," + first + "," + last + "]";
    }

    private static String list(Collection<TopicPartition> partitions) {
        List<String> out = new ArrayList<>();
        partitions.forEach(tp -> out.add("[\"" + tp.topic() + "\"," + tp.partition() + "]"));
        return ",\"p\":[" + String.join(",", out) + "]";
    }

    private static String quoted(String text) {
        return "\"" + text.replaceAll("[^ -~]", " ").replace("\\", "/").replace("\"", "'") + "\"";
    }

    private void tell(String event, String more) {
        String line = "{\"t\":" + System.nanoTime() + ",\"m\":\"" + name + "\",\"e\":\"" + event + "\"" + more + "}\n";
        try {
            synchronized (OUT) {
                OUT.write(line.getBytes(StandardCharsets.UTF_8));
            }
        } catch (IOException e) {
            Runtime.getRuntime().halt(3);
        }
    }
}
