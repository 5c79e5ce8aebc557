import java.io.BufferedReader;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.util.Arrays;
import java.util.Base64;
import org.apache.kafka.common.utils.Exit;

/**
 * Runs Kafka's tools in one process. A line of input is the class and its arguments, a line of output the exit code and what the tool
 * wrote to its output and to its log; all but the code is in base64, with = before it.
 */
public class Tools {
    private static class Ended extends Error {}

    /** The first exit of a run is the one that counts: some tools catch what it throws, say so and exit once more. */
    private static volatile Integer exit;

    public static void main(String[] args) throws Exception {
        Exit.Procedure end = (code, message) -> {
            if (exit == null) {
                exit = code;
                System.setOut(new PrintStream(OutputStream.nullOutputStream()));
                System.setErr(new PrintStream(OutputStream.nullOutputStream()));
            }
            throw new Ended();
        };
        Exit.setExitProcedure(end);
        Exit.setHaltProcedure(end);
        PrintStream answers = System.out;
        BufferedReader in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = in.readLine(); line != null; line = in.readLine()) {
            String[] words = Arrays.stream(line.split(" ")).map(Tools::decoded).toArray(String[]::new);
            ByteArrayOutputStream out = new ByteArrayOutputStream();
            ByteArrayOutputStream log = new ByteArrayOutputStream();
            System.setOut(new PrintStream(out, true));
            System.setErr(new PrintStream(log, true));
            exit = null;
            int code = 0;
            try {
                String[] rest = Arrays.copyOfRange(words, 1, words.length);
                Class.forName(words[0]).getMethod("main", String[].class).invoke(null, (Object) rest);
            } catch (InvocationTargetException e) {
                code = 1;
                if (exit == null) {
                    e.getCause().printStackTrace();
                }
            }
            answers.println((exit == null ? code : exit) + " " + encoded(out) + " " + encoded(log));
            answers.flush();
        }
    }

    private static String decoded(String word) {
        return new String(Base64.getDecoder().decode(word.substring(1)), StandardCharsets.UTF_8);
    }

    private static String encoded(ByteArrayOutputStream bytes) {
        return "=" + Base64.getEncoder().encodeToString(bytes.toByteArray());
    }
}
