package android.graphics;

/** The outline of Android's class, to compile against. */
public class ImageFormat {
    public static final int YUV_420_888 = 35;
}
