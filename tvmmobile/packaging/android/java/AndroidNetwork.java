package tvmmobile.template;

import android.graphics.Bitmap;
import android.graphics.ImageFormat;
import android.media.Image;
import java.nio.ByteBuffer;

/** A {@link Network} that takes Android's images. */
public final class AndroidNetwork extends Network {
    /** For the pixels of bitmaps. */
    private ByteBuffer pixels = ByteBuffer.allocateDirect(0);

    /** See {@link Network#Network()}. */
    public AndroidNetwork() {}

    /** See {@link Network#Network(int)}. */
    public AndroidNetwork(int threads) {
        super(threads);
    }

    /**
     * As {@link Network#run(Frame)}. Android has multiplied colours by alpha unless the bitmap is opaque.
     *
     * @throws IllegalArgumentException if the bitmap is recycled
     */
    public synchronized Outputs run(Bitmap bitmap) {
        if (bitmap.isRecycled()) throw new IllegalArgumentException("the bitmap is recycled");
        if (bitmap.getConfig() != Bitmap.Config.ARGB_8888) {
            Bitmap copy = bitmap.copy(Bitmap.Config.ARGB_8888, false);
            if (copy == null) throw new IllegalArgumentException("the bitmap cannot be copied as ARGB_8888");
            try {
                return run(copy);
            } finally {
                copy.recycle();
            }
        }
        int bytes = bitmap.getRowBytes() * bitmap.getHeight();
        if (pixels.capacity() < bytes) pixels = ByteBuffer.allocateDirect(bytes);
        pixels.clear();
        bitmap.copyPixelsToBuffer(pixels); // which Android stores as red, green, blue, alpha
        pixels.flip();
        return run(Frame.rgba(pixels, bitmap.getWidth(), bitmap.getHeight(), bitmap.getRowBytes()));
    }

    /**
     * As {@link Network#run(Frame)}, for a frame in YUV_420_888 that is set upright by a rotation clockwise. Its crop is not applied.
     *
     * @throws IllegalArgumentException if the image has another format
     */
    public Outputs run(Image image, int rotationDegrees) {
        return run(frame(image).rotated(rotationDegrees));
    }

    private static Frame frame(Image image) {
        if (image.getFormat() != ImageFormat.YUV_420_888)
            throw new IllegalArgumentException("the image has the format " + image.getFormat() + ": ask for YUV_420_888");
        Image.Plane[] planes = image.getPlanes();
        if (planes[1].getRowStride() != planes[2].getRowStride() || planes[1].getPixelStride() != planes[2].getPixelStride())
            throw new IllegalArgumentException("the planes of U and V have different strides");
        return Frame.yuv420(planes[0].getBuffer(), planes[1].getBuffer(), planes[2].getBuffer(), image.getWidth(), image.getHeight(),
                planes[0].getRowStride(), planes[1].getRowStride(), planes[1].getPixelStride());
    }
}
