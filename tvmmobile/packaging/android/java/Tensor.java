package tvmmobile.template;

import java.util.Arrays;

/** An input or output of the network. */
public final class Tensor {
    /** {@code input} or {@code output} where it is the only one. */
    public final String name;

    /** {@code float32}, {@code uint8}, {@code int8}, {@code int32} or {@code int64}; half precision is converted from and to float32. */
    public final String type;

    /** Order of the axes, such as {@code NCHW}; "" if they have no letters. */
    public final String layout;

    /** How many numbers it has. */
    public final int elements;

    private final int[] shape;
    private final float[] scales;
    private final int[] zeroPoints;
    private final int axis;

    Tensor(String name, String type, String layout, int[] shape, float[] scales, int[] zeroPoints, int axis) {
        this.name = name;
        this.type = type;
        this.layout = layout;
        this.shape = shape;
        this.scales = scales;
        this.zeroPoints = zeroPoints;
        this.axis = axis;
        int product = 1;
        for (int extent : shape) product *= extent;
        elements = product;
    }

    /** The extents of its axes. */
    public int[] shape() {
        return shape.clone();
    }

    /** Scales of quantised numbers, which stand for {@code scale * (stored - zero point)}; none if they are not quantised. */
    public float[] scales() {
        return scales.clone();
    }

    /** As many as scales. */
    public int[] zeroPoints() {
        return zeroPoints.clone();
    }

    /** What a stored integer stands for, at a place counted over all axes. */
    float real(long stored, int place) {
        if (scales.length == 0) return stored;
        int channel = 0;
        if (scales.length > 1) {
            int inner = 1;
            for (int i = axis + 1; i < shape.length; ++i) inner *= shape[i];
            channel = place / inner % shape[axis];
        }
        return scales[channel] * (stored - zeroPoints[channel]);
    }

    @Override
    public String toString() {
        return name + ": " + type + " " + Arrays.toString(shape);
    }
}
