import android.graphics.Bitmap;
import android.media.Image;
import java.io.File;
import java.nio.Buffer;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.IntBuffer;
import java.nio.LongBuffer;
import java.nio.file.Files;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;
import org.example.my_net.AndroidNetwork;
import org.example.my_net.Frame;
import org.example.my_net.Network;
import org.example.my_net.Outputs;

/** What an app does with two packages: a classifier of images, and a recurrent network in half precision with several inputs and outputs. */
public class Program {
    private static File folder;

    private interface Action {
        Object run() throws Exception;
    }

    private static void say(String what, Action action) {
        try {
            System.out.println(what + "\t" + action.run());
        } catch (Throwable error) {
            System.out.println(what + "\t" + error);
        }
    }

    private static byte[] bytes(String name) throws Exception {
        return Files.readAllBytes(new File(folder, name).toPath());
    }

    private static ByteBuffer direct(byte[] bytes) {
        ByteBuffer buffer = ByteBuffer.allocateDirect(bytes.length).order(ByteOrder.nativeOrder());
        buffer.duplicate().put(bytes);
        return buffer;
    }

    private static ByteBuffer stored(String name) throws Exception {
        return direct(bytes(name));
    }

    public static void main(String[] words) throws Exception {
        folder = new File(words[0]);
        FloatBuffer input = stored("input").asFloatBuffer();
        Network network = new Network();
        float[] expected = network.run(input).floats();
        say("scores", () -> Arrays.toString(expected));
        say("top", () -> network.run(input).top(2));
        say("ports", () -> network.inputs() + " " + network.outputs());
        say("threads", () -> Network.mostThreads());
        say("kernels", network::kernels);
        say("position stays", () -> input.position());
        say("heap", () -> same(network, expected, FloatBuffer.wrap(heap(input))));
        say("other order", () -> {
            ByteBuffer turned = ByteBuffer.allocate(4 * input.remaining()).order(ByteOrder.BIG_ENDIAN);
            turned.asFloatBuffer().put(input.duplicate());
            return same(network, expected, turned);
        });
        say("one thread", () -> {
            try (Network one = new Network(1)) {
                return same(one, expected, input);
            }
        });
        say("several threads", () -> {
            List<Boolean> alike = Collections.synchronizedList(new ArrayList<>());
            Thread[] callers = new Thread[4];
            for (int i = 0; i < callers.length; ++i) {
                callers[i] = new Thread(() -> {
                    for (int turn = 0; turn < 5; ++turn) alike.add(same(network, expected, input.duplicate()));
                });
                callers[i].start();
            }
            for (Thread caller : callers) caller.join();
            return Collections.frequency(alike, true);
        });
        say("too many threads", () -> new Network(Network.mostThreads() + 1));
        say("no threads", () -> new Network(-1));
        say("too few numbers", () -> network.run(FloatBuffer.allocate(3)));
        say("too few bytes", () -> network.run(ByteBuffer.allocate(3)));
        say("another type", () -> network.run(IntBuffer.allocate(768)));
        say("too many inputs", () -> network.run(input, input));
        see();
        frames(network);
        say("reset", () -> {
            network.reset();
            return "done";
        });
        several();
        network.close();
        network.close();
        say("closed", () -> network.run(input));
        say("closed to images", () -> network.run(Frame.nv21(new byte[16 * 24], 16, 16)));
        say("closed to resets", () -> {
            network.reset();
            return "done";
        });
        say("closed to questions", network::kernels);
    }

    private static float[] heap(FloatBuffer buffer) {
        float[] numbers = new float[buffer.remaining()];
        buffer.duplicate().get(numbers);
        return numbers;
    }

    private static boolean same(Network network, float[] expected, Buffer input) {
        return Arrays.equals(network.run(input).floats(), expected);
    }

    /** Each line of `frames`: a format, width, height, rotation, three strides and a step; the planes and what is expected have its number. */
    private static void see() throws Exception {
        try (AndroidNetwork network = new AndroidNetwork(2)) {
            int number = 0;
            for (String line : new String(bytes("frames"), "UTF-8").split("\n")) {
                int place = number++;
                String[] fields = line.split(" ");
                int[] n = new int[fields.length];
                for (int i = 1; i < n.length; ++i) n[i] = Integer.parseInt(fields[i]);
                ByteBuffer[] planes = new ByteBuffer[3];
                for (int i = 0; i < 3; ++i) planes[i] = stored(place + ".plane" + i);
                float[] expected = network.run(stored(place + ".seen").asFloatBuffer()).floats();
                say("frame " + line, () -> {
                    Outputs found;
                    switch (fields[0]) {
                        case "rgb":
                            found = network.run(Frame.rgb(planes[0], n[1], n[2], n[4]).rotated(n[3]));
                            break;
                        case "rgba":
                            found = network.run(Frame.rgba(planes[0], n[1], n[2], n[4]).rotated(n[3]));
                            break;
                        case "nv21":
                            found = network.run(Frame.nv21(planes[0], planes[1], n[1], n[2], n[4], n[5]).rotated(n[3]));
                            break;
                        case "bytes":
                            found = network.run(Frame.nv21(bytes(place + ".whole"), n[1], n[2], n[4], n[5]).rotated(n[3]));
                            break;
                        case "bitmap":
                            found = network.run(new Bitmap(planes[0], n[1], n[2], n[4]));
                            break;
                        case "image":
                            found = network.run(new Image(planes, n[1], n[2], n[4], n[5], n[7]), n[3]);
                            break;
                        default:
                            found = network.run(Frame.yuv420(planes[0], planes[1], planes[2], n[1], n[2], n[4], n[5], n[7]).rotated(n[3]));
                    }
                    return Arrays.equals(found.floats(), expected);
                });
            }
        }
    }

    private static void frames(Network network) {
        byte[] small = new byte[16 * 24];
        say("a frame too small", () -> network.run(Frame.nv21(small, 20, 20)));
        say("chroma too small", () -> network.run(Frame.nv21(Arrays.copyOf(small, 300), 16, 16)));
        say("an odd rotation", () -> network.run(Frame.nv21(small, 16, 16).rotated(45)));
        say("no width", () -> network.run(Frame.nv21(small, 0, 16)));
        say("a negative height", () -> network.run(Frame.nv21(small, 16, -16)));
        say("a narrow stride", () -> network.run(Frame.nv21(small, 16, 16, 8, 16)));
        say("a negative stride", () -> network.run(Frame.nv21(ByteBuffer.wrap(small), ByteBuffer.wrap(small), 16, 16, -16, 16)));
        ByteBuffer plane = ByteBuffer.wrap(small);
        say("a wide step", () -> network.run(Frame.yuv420(plane, plane, plane, 16, 16, 16, 30, 3)));
        say("a vast frame", () -> network.run(Frame.rgb(plane, Integer.MAX_VALUE, Integer.MAX_VALUE, 0)));
    }

    private static void several() throws Exception {
        try (org.example.other.Network other = new org.example.other.Network()) {
            say("other ports", () -> other.inputs() + " " + other.outputs());
            for (int turn : new int[] {0, 1, 0}) {
                if (turn == 0) other.reset();
                FloatBuffer image = stored("x" + turn).asFloatBuffer();
                org.example.other.Outputs found = other.run(image, LongBuffer.wrap(new long[] {3, 5, 7, 9}));
                say("turn " + turn, () -> Arrays.toString(found.floats(0)) + ";" + Arrays.toString((long[]) found.array(1)) + ";" + found.size());
            }
            say("integers as reals", () -> {
                org.example.other.Outputs found = other.run(FloatBuffer.allocate(other.inputs().get(0).elements), LongBuffer.allocate(4));
                return Arrays.toString(found.floats(1));
            });
            say("not an image's", () -> other.run(org.example.other.Frame.nv21(new byte[16 * 24], 16, 16)));
            say("integers from floats", () -> other.run(FloatBuffer.allocate(other.inputs().get(0).elements), FloatBuffer.allocate(4)));
        }
    }
}
