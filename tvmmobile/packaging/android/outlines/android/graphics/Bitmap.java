package android.graphics;

/** The outline of Android's class, to compile against. */
public final class Bitmap {
    public enum Config {
        ARGB_8888
    }

    private Bitmap() {}

    public native Config getConfig();

    public native boolean isRecycled();

    public native Bitmap copy(Config config, boolean isMutable);

    public native void copyPixelsToBuffer(java.nio.Buffer dst);

    public native int getWidth();

    public native int getHeight();

    public native int getRowBytes();

    public native void recycle();
}
