package android.media;

import java.nio.ByteBuffer;

/** Stands for Android's class: the planes of a frame in YUV_420_888. */
public class Image implements AutoCloseable {
    /** See Android's. */
    public static class Plane {
        private final ByteBuffer buffer;
        private final int stride;
        private final int step;

        Plane(ByteBuffer buffer, int stride, int step) {
            this.buffer = buffer;
            this.stride = stride;
            this.step = step;
        }

        public int getRowStride() {
            return stride;
        }

        public int getPixelStride() {
            return step;
        }

        public ByteBuffer getBuffer() {
            return buffer;
        }
    }

    private final Plane[] planes;
    private final int width;
    private final int height;

    public Image(ByteBuffer[] planes, int width, int height, int lumaStride, int chromaStride, int chromaStep) {
        this.planes = new Plane[] {
            new Plane(planes[0], lumaStride, 1), new Plane(planes[1], chromaStride, chromaStep), new Plane(planes[2], chromaStride, chromaStep)
        };
        this.width = width;
        this.height = height;
    }

    /** That of YUV_420_888. */
    public int getFormat() {
        return 35;
    }

    public int getWidth() {
        return width;
    }

    public int getHeight() {
        return height;
    }

    public Plane[] getPlanes() {
        return planes;
    }

    @Override
    public void close() {}
}
