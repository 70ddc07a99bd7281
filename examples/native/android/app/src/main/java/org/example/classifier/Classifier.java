package org.example.classifier;

/** A network that {@code tvmmobile compile} compiled, with threads of its own until it is closed. */
public final class Classifier implements AutoCloseable {
    static {
        System.loadLibrary("classifier");
    }

    private long handle;

    /** Starts {@code threads - 1} threads; throws IllegalArgumentException for more than the network was compiled for. */
    public Classifier(int threads) {
        handle = nativeOpen(threads);
    }

    /** How many floats an input has: an image as NCHW. */
    public static int inputs() {
        return nativeInputs();
    }

    /** The score of every class. */
    public synchronized float[] run(float[] input) {
        if (handle == 0) throw new IllegalStateException("the classifier is closed");
        float[] scores = new float[nativeOutputs()];
        nativeRun(handle, input, scores);
        return scores;
    }

    @Override
    public synchronized void close() {
        if (handle != 0) nativeClose(handle);
        handle = 0;
    }

    private static native long nativeOpen(int threads);

    private static native int nativeInputs();

    private static native int nativeOutputs();

    private static native void nativeRun(long handle, float[] input, float[] scores);

    private static native void nativeClose(long handle);
}
