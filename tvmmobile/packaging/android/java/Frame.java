package tvmmobile.template;

import java.nio.ByteBuffer;

/**
 * An image of 8 bits a channel, as a camera or file delivers it. It is read during {@link Network#run(Frame)};
 * buffers outside Java's heap are not copied.
 *
 * <p>Rows are as many bytes apart as the stride says; 0 means without gaps. Chroma has half the width and height, rounded up,
 * and BT.601's full range, as in Android's camera frames.
 */
public final class Frame {
    // As in the library's header.
    private static final int RGB = 1;
    private static final int RGBA = 3;
    private static final int NV21 = 5;
    private static final int YUV420 = 7;

    final int format;
    final int width;
    final int height;
    final int turns;
    final ByteBuffer[] planes;
    final int[] strides;
    final int chromaStep;

    private Frame(int format, int width, int height, int turns, ByteBuffer[] planes, int[] strides, int chromaStep) {
        this.format = format;
        this.width = width;
        this.height = height;
        this.turns = turns;
        this.planes = planes;
        this.strides = strides;
        this.chromaStep = chromaStep;
    }

    /** Red, green, blue. */
    public static Frame rgb(ByteBuffer pixels, int width, int height, int stride) {
        return checked(RGB, width, height, 0, new int[] {3 * width}, new int[] {stride}, pixels);
    }

    /** Red, green, blue and alpha, which is ignored: bitmaps in ARGB_8888 and CameraX's RGBA_8888. */
    public static Frame rgba(ByteBuffer pixels, int width, int height, int stride) {
        return checked(RGBA, width, height, 0, new int[] {4 * width}, new int[] {stride}, pixels);
    }

    /** NV21 in one piece without gaps: luma, then V and U in turn. */
    public static Frame nv21(byte[] bytes, int width, int height) {
        return nv21(bytes, width, height, width, 2 * half(width));
    }

    /** NV21 in one piece: {@code height} rows of luma, then V and U in turn. */
    public static Frame nv21(byte[] bytes, int width, int height, int lumaStride, int chromaStride) {
        long luma = Math.max(0, (long) (lumaStride == 0 ? width : lumaStride) * height);
        if (luma > bytes.length) throw tooSmall(0, bytes.length, luma);
        ByteBuffer chroma = ByteBuffer.wrap(bytes, (int) luma, bytes.length - (int) luma);
        return nv21(ByteBuffer.wrap(bytes), chroma, width, height, lumaStride, chromaStride);
    }

    /** NV21: luma; V and U in turn. */
    public static Frame nv21(ByteBuffer luma, ByteBuffer chroma, int width, int height, int lumaStride, int chromaStride) {
        return checked(NV21, width, height, 0, new int[] {width, 2 * half(width)}, new int[] {lumaStride, chromaStride}, luma, chroma);
    }

    /** YUV_420_888: the three planes of an {@code Image} or {@code ImageProxy}, with their row strides and the pixel stride of U and V. */
    public static Frame yuv420(
            ByteBuffer y, ByteBuffer u, ByteBuffer v, int width, int height, int lumaStride, int chromaStride, int chromaStep) {
        int row = (half(width) - 1) * Math.max(chromaStep, 1) + 1;
        int[] strides = {lumaStride, chromaStride, chromaStride};
        return checked(YUV420, width, height, chromaStep, new int[] {width, row, row}, strides, y, u, v);
    }

    /** The same image, to be rotated clockwise by so many degrees more, as {@code ImageInfo.getRotationDegrees()} gives them. */
    public Frame rotated(int degrees) {
        if (degrees % 90 != 0) throw new IllegalArgumentException("an image is rotated by multiples of 90 degrees, not by " + degrees);
        return new Frame(format, width, height, turns + degrees / 90 & 3, planes, strides, chromaStep);
    }

    private static int half(int extent) {
        return extent / 2 + extent % 2;
    }

    /** The library refuses sizes, strides and steps that it cannot take, but does not know where a buffer ends. */
    private static Frame checked(int format, int width, int height, int step, int[] rows, int[] strides, ByteBuffer... planes) {
        ByteBuffer[] kept = new ByteBuffer[planes.length];
        for (int i = 0; i < planes.length; ++i) {
            if (strides[i] < 0) throw new IllegalArgumentException("the stride of plane " + i + " is " + strides[i]);
            // Without gaps, a row of chroma ends with its last sample's step.
            int stride = strides[i] != 0 ? strides[i] : format == YUV420 && i > 0 ? half(width) * Math.max(step, 1) : rows[i];
            long needed = (long) stride * ((i == 0 ? height : half(height)) - 1) + rows[i];
            if (planes[i].remaining() < needed) throw tooSmall(i, planes[i].remaining(), needed);
            kept[i] = planes[i].slice();
        }
        return new Frame(format, width, height, 0, kept, strides, step);
    }

    private static IllegalArgumentException tooSmall(int plane, long bytes, long needed) {
        return new IllegalArgumentException("plane " + plane + " of the image has " + bytes + " bytes, and its size needs " + needed);
    }
}
