import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.Base64;
import org.apache.kafka.common.utils.Exit;
import org.apache.kafka.tools.consumer.group.ConsumerGroupCommand;

/**
 * Runs kafka-consumer-groups many times in one process. A line of input is its arguments between tabs; a line of output is its exit
 * code and, each in base64, what it wrote to its output and to its log.
 */
public class GroupsTool {
    private static class Ended extends RuntimeException {
        private final int code;

        private Ended(int code) {
            this.code = code;
        }
    }

    public static void main(String[] args) throws Exception {
        Exit.Procedure end = (code, message) -> {
            throw new Ended(code);
        };
        Exit.setExitProcedure(end);
        Exit.setHaltProcedure(end);
        PrintStream answers = System.out;
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            ByteArrayOutputStream out = new ByteArrayOutputStream();
            ByteArrayOutputStream log = new ByteArrayOutputStream();
            System.setOut(new PrintStream(out, true));
            System.setErr(new PrintStream(log, true));
            int code = 0;
            try {
                ConsumerGroupCommand.main(line.split("\t"));
            } catch (Ended e) {
                code = e.code;
            } catch (Throwable e) {
                e.printStackTrace();
                code = 1;
            }
            answers.println(code + " " + encoded(out) + " " + encoded(log));
            answers.flush();
        }
    }

    private static String encoded(ByteArrayOutputStream bytes) {
        return "=" + Base64.getEncoder().encodeToString(bytes.toByteArray());
    }
}
