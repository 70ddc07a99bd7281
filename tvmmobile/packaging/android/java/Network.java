package tvmmobile.template;

import java.nio.Buffer;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.nio.IntBuffer;
import java.nio.LongBuffer;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.List;

/**
 * A compiled network, with memory and threads of its own until it is closed. Threads may share one: their calls wait for one another.
 *
 * <p>It needs nothing of Android but a loader that knows where the native libraries lie.
 */
public class Network implements AutoCloseable {
    private static final LinkageError MISSING = load();

    private final List<Tensor> inputs = tensors(false);
    private final List<Tensor> outputs = tensors(true);
    private final ByteBuffer[] memory;
    /** For planes within Java's heap. */
    private final ByteBuffer[] copies = new ByteBuffer[3];
    private long handle;

    /** Starts as many threads as the network was compiled for. */
    public Network() {
        this(mostThreads());
    }

    /**
     * Starts {@code threads - 1} threads: the one that calls {@code run} works as well. 0 stands for as many as are fastest on this CPU, by
     * what was known when the network was compiled.
     *
     * @throws IllegalArgumentException for more threads than the network was compiled for
     * @throws UnsupportedOperationException if this device's CPU cannot run it
     */
    public Network(int threads) {
        if (threads < 0) throw new IllegalArgumentException("a network needs at least one thread, not " + threads);
        handle = open(threads);
        memory = new ByteBuffer[inputs.size() + outputs.size()];
        for (int i = 0; i < memory.length; ++i) memory[i] = memory(handle, i).order(ByteOrder.nativeOrder());
    }

    /** How many threads it was compiled for. */
    public static int mostThreads() {
        ready();
        return threads();
    }

    /** The inputs, in the network's order. */
    public List<Tensor> inputs() {
        return inputs;
    }

    /** The outputs, in the network's order. */
    public List<Tensor> outputs() {
        return outputs;
    }

    /**
     * Computes the outputs from inputs in the network's order: {@link FloatBuffer} for float32, {@link IntBuffer}, {@link LongBuffer}, or
     * {@link ByteBuffer} for any type, in the order of its bytes that it has. Their numbers are read from the position on, which stays.
     *
     * @throws IllegalArgumentException if they are others, or have more or fewer numbers
     * @throws IllegalStateException if it is closed
     */
    public synchronized Outputs run(Buffer... given) {
        check();
        if (given.length != inputs.size())
            throw new IllegalArgumentException("the network has " + inputs.size() + " inputs, and " + given.length + " are given");
        for (int i = 0; i < given.length; ++i) checkInput(inputs.get(i), given[i]);
        for (int i = 0; i < given.length; ++i) copy(given[i], inputs.get(i), memory[i].duplicate().order(ByteOrder.nativeOrder()));
        compute(handle);
        return results();
    }

    /**
     * Computes the outputs for an image, which is scaled, cropped, normalised and set upright as at {@code tvmmobile run}.
     *
     * @throws UnsupportedOperationException if the network was compiled without {@code --image}
     * @throws IllegalArgumentException if the image has a size that is not scaled, or strides smaller than its rows
     * @throws IllegalStateException if it is closed
     */
    public synchronized Outputs run(Frame frame) {
        check();
        ByteBuffer[] planes = new ByteBuffer[3];
        for (int i = 0; i < frame.planes.length; ++i) planes[i] = direct(frame.planes[i], i);
        int[] strides = Arrays.copyOf(frame.strides, 3);
        see(handle, frame.format, frame.width, frame.height, frame.turns, planes[0], planes[1], planes[2], strides[0], strides[1],
                strides[2], frame.chromaStep);
        return results();
    }

    /** Sets the states of a recurrent network to zeros, before a new sequence. */
    public synchronized void reset() {
        check();
        clear(handle);
    }

    /** The kernels in use and the reason, such as {@code cortex-a76: it was tuned for this core}. */
    public synchronized String kernels() {
        check();
        return kernels(handle, 0) + ": " + kernels(handle, 1);
    }

    /** Waits for a call that is under way, ends the threads and frees the memory; a second time does nothing. */
    @Override
    public synchronized void close() {
        if (handle == 0) return;
        free(handle);
        handle = 0;
        Arrays.fill(memory, null);
    }

    private void check() {
        if (handle == 0) throw new IllegalStateException("the network is closed");
    }

    private static LinkageError load() {
        try {
            System.loadLibrary("tvmmobile_template_jni");
            return null;
        } catch (UnsatisfiedLinkError error) {
            return error;
        }
    }

    private static void ready() {
        if (MISSING == null) return;
        String reason = "the network is compiled for arm64-v8a alone, and this process cannot load that: ";
        throw new UnsupportedOperationException(reason + MISSING.getMessage(), MISSING);
    }

    private static List<Tensor> tensors(boolean outputs) {
        ready();
        List<Tensor> found = new ArrayList<>();
        int first = outputs ? count(0) : 0;
        for (int place = first; place < first + count(outputs ? 1 : 0); ++place) {
            int[] shape = new int[(int) number(place, 0, 0)];
            for (int i = 0; i < shape.length; ++i) shape[i] = (int) number(place, 3, i);
            float[] scales = new float[(int) number(place, 1, 0)];
            int[] zeroPoints = new int[scales.length];
            for (int i = 0; i < scales.length; ++i) {
                scales[i] = scale(place, i);
                zeroPoints[i] = (int) number(place, 4, i);
            }
            int axis = (int) number(place, 2, 0);
            found.add(new Tensor(text(place, 0), text(place, 1), text(place, 2), shape, scales, zeroPoints, axis));
        }
        return Collections.unmodifiableList(found);
    }

    private static int bytesEach(String type) {
        switch (type) {
            case "uint8":
            case "int8":
                return 1;
            case "int64":
                return 8;
            default:
                return 4;
        }
    }

    private static void checkInput(Tensor tensor, Buffer given) {
        boolean fits = given instanceof ByteBuffer
                || given instanceof FloatBuffer && tensor.type.equals("float32")
                || given instanceof IntBuffer && tensor.type.equals("int32")
                || given instanceof LongBuffer && tensor.type.equals("int64");
        if (!fits) throw new IllegalArgumentException(tensor + " cannot be read from a " + given.getClass().getSimpleName());
        long wanted = given instanceof ByteBuffer ? (long) tensor.elements * bytesEach(tensor.type) : tensor.elements;
        if (given.remaining() == wanted) return;
        String what = given instanceof ByteBuffer ? " bytes" : " numbers";
        throw new IllegalArgumentException(tensor + " has " + wanted + what + ", and the buffer has " + given.remaining());
    }

    private static void copy(Buffer given, Tensor tensor, ByteBuffer goal) {
        if (given instanceof FloatBuffer) goal.asFloatBuffer().put(((FloatBuffer) given).duplicate());
        else if (given instanceof IntBuffer) goal.asIntBuffer().put(((IntBuffer) given).duplicate());
        else if (given instanceof LongBuffer) goal.asLongBuffer().put(((LongBuffer) given).duplicate());
        else {
            ByteBuffer bytes = ((ByteBuffer) given).duplicate().order(((ByteBuffer) given).order());
            int each = bytesEach(tensor.type);
            if (each == 1 || bytes.order() == ByteOrder.nativeOrder()) goal.put(bytes);
            else if (each == 8) goal.asLongBuffer().put(bytes.asLongBuffer());
            else goal.asIntBuffer().put(bytes.asIntBuffer());
        }
    }

    private Outputs results() {
        Object[] arrays = new Object[outputs.size()];
        for (int i = 0; i < arrays.length; ++i) {
            Tensor tensor = outputs.get(i);
            ByteBuffer from = memory[inputs.size() + i].duplicate().order(ByteOrder.nativeOrder());
            switch (tensor.type) {
                case "float32":
                    from.asFloatBuffer().get((float[]) (arrays[i] = new float[tensor.elements]));
                    break;
                case "int32":
                    from.asIntBuffer().get((int[]) (arrays[i] = new int[tensor.elements]));
                    break;
                case "int64":
                    from.asLongBuffer().get((long[]) (arrays[i] = new long[tensor.elements]));
                    break;
                default:
                    from.get((byte[]) (arrays[i] = new byte[tensor.elements]));
            }
        }
        return new Outputs(outputs, arrays);
    }

    /** A buffer outside Java's heap with a plane's bytes, the plane itself if it is one. */
    private ByteBuffer direct(ByteBuffer plane, int place) {
        if (plane.isDirect()) return plane;
        if (copies[place] == null || copies[place].capacity() < plane.remaining())
            copies[place] = ByteBuffer.allocateDirect(plane.remaining());
        copies[place].duplicate().put(plane.duplicate());
        return copies[place];
    }

    private static native long open(int threads);

    private static native void free(long handle);

    private static native ByteBuffer memory(long handle, int place);

    private static native void compute(long handle);

    private static native void see(long handle, int format, int width, int height, int turns, ByteBuffer plane0, ByteBuffer plane1,
            ByteBuffer plane2, int stride0, int stride1, int stride2, int step);

    private static native void clear(long handle);

    private static native String kernels(long handle, int what);

    private static native int threads();

    private static native int count(int outputs);

    private static native String text(int place, int what);

    private static native long number(int place, int what, int index);

    private static native float scale(int place, int index);
}
