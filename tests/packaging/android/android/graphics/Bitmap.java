package android.graphics;

import java.nio.Buffer;
import java.nio.ByteBuffer;

/** Stands for Android's class: pixels in memory, as red, green, blue, alpha, or the same in a configuration that must be copied. */
public final class Bitmap {
    public enum Config {
        ARGB_8888,
        HARDWARE
    }

    private final ByteBuffer pixels;
    private final int width;
    private final int height;
    private final int stride;
    private final Config config;
    private boolean recycled;

    public Bitmap(ByteBuffer pixels, int width, int height, int stride) {
        this(pixels, width, height, stride, stride == 0 ? Config.HARDWARE : Config.ARGB_8888);
    }

    private Bitmap(ByteBuffer pixels, int width, int height, int stride, Config config) {
        this.pixels = pixels;
        this.width = width;
        this.height = height;
        this.stride = stride == 0 ? 4 * width : stride;
        this.config = config;
    }

    public Config getConfig() {
        return config;
    }

    public boolean isRecycled() {
        return recycled;
    }

    public Bitmap copy(Config config, boolean isMutable) {
        return new Bitmap(pixels, width, height, stride, config);
    }

    public void copyPixelsToBuffer(Buffer dst) {
        if (config == Config.HARDWARE) throw new IllegalStateException("unable to copyPixelsToBuffer, pixel access is not supported on Config#HARDWARE bitmaps");
        ((ByteBuffer) dst).put(pixels.duplicate());
        dst.position(stride * height);
    }

    public int getWidth() {
        return width;
    }

    public int getHeight() {
        return height;
    }

    public int getRowBytes() {
        return stride;
    }

    public void recycle() {
        recycled = true;
    }
}
