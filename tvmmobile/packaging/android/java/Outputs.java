package tvmmobile.template;

import java.util.ArrayList;
import java.util.List;

/** What the network computed in one call. Its arrays belong to the caller. */
public final class Outputs {
    private final List<Tensor> tensors;
    private final Object[] arrays;

    Outputs(List<Tensor> tensors, Object[] arrays) {
        this.tensors = tensors;
        this.arrays = arrays;
    }

    /** How many there are. */
    public int size() {
        return arrays.length;
    }

    /** An output by its place, as stored: a {@code float[]}, {@code byte[]} (of uint8 as well), {@code int[]} or {@code long[]}. */
    public Object array(int place) {
        return arrays[place];
    }

    /** The first output as real numbers. */
    public float[] floats() {
        return floats(0);
    }

    /** An output as real numbers: quantised ones are {@code scale * (stored - zero point)}. */
    public float[] floats(int place) {
        Object array = arrays[place];
        if (array instanceof float[]) return (float[]) array;
        Tensor tensor = tensors.get(place);
        float[] reals = new float[tensor.elements];
        for (int i = 0; i < reals.length; ++i) {
            long stored;
            if (array instanceof byte[]) stored = tensor.type.equals("uint8") ? ((byte[]) array)[i] & 0xff : ((byte[]) array)[i];
            else stored = array instanceof int[] ? ((int[]) array)[i] : ((long[]) array)[i];
            reals[i] = tensor.real(stored, i);
        }
        return reals;
    }

    /** A class of a classifier. */
    public static final class Score {
        /** Its place among the classes. */
        public final int index;

        /** The network's. */
        public final float score;

        /** After softmax. */
        public final float probability;

        Score(int index, float score, float probability) {
            this.index = index;
            this.score = score;
            this.probability = probability;
        }

        @Override
        public String toString() {
            return index + ": " + 100 * probability + " %";
        }
    }

    /**
     * The largest numbers of the first output, largest first, of equal ones the first; all of them if there are fewer than wanted.
     *
     * @throws ArithmeticException if one is infinite or not a number
     */
    public List<Score> top(int wanted) {
        float[] scores = floats();
        for (int i = 0; i < scores.length; ++i)
            if (Float.isNaN(scores[i]) || Float.isInfinite(scores[i])) throw new ArithmeticException("score " + i + " is " + scores[i]);
        boolean[] taken = new boolean[scores.length];
        List<Score> found = new ArrayList<>();
        double sum = 0;
        while (found.size() < Math.min(wanted, scores.length)) {
            int best = -1;
            for (int i = 0; i < scores.length; ++i)
                if (!taken[i] && (best < 0 || scores[i] > scores[best])) best = i;
            taken[best] = true;
            if (found.isEmpty()) for (float score : scores) sum += Math.exp((double) score - scores[best]);
            double greatest = found.isEmpty() ? scores[best] : found.get(0).score;
            found.add(new Score(best, scores[best], (float) (Math.exp(scores[best] - greatest) / sum)));
        }
        return found;
    }
}
