package org.example.classifier;

import android.app.Activity;
import android.os.Bundle;
import android.widget.TextView;
import java.io.DataInputStream;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;

/** Classifies the input in the app's assets and shows the best class. */
public final class MainActivity extends Activity {
    private static final int THREADS = 4;
    private static final String INPUT = "input.f32";

    @Override
    protected void onCreate(Bundle state) {
        super.onCreate(state);
        TextView view = new TextView(this);
        setContentView(view);
        // Not on the thread that draws.
        new Thread(() -> {
            String text = classify();
            runOnUiThread(() -> view.setText(text));
        }).start();
    }

    private String classify() {
        try (Classifier classifier = new Classifier(THREADS)) {
            float[] scores = classifier.run(readInput());
            int best = 0;
            for (int i = 1; i < scores.length; ++i) if (scores[i] > scores[best]) best = i;
            return "class " + best + ": " + scores[best];
        } catch (IOException | RuntimeException error) {
            return error.toString();
        }
    }

    /** Raw float32, little endian. */
    private float[] readInput() throws IOException {
        byte[] bytes = new byte[4 * Classifier.inputs()];
        try (DataInputStream asset = new DataInputStream(getAssets().open(INPUT))) {
            asset.readFully(bytes);
        }
        float[] input = new float[bytes.length / 4];
        ByteBuffer.wrap(bytes).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(input);
        return input;
    }
}
