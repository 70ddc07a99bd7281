package org.example.camera;

import android.Manifest;
import android.os.Bundle;
import android.view.Gravity;
import android.widget.FrameLayout;
import android.widget.TextView;
import androidx.activity.ComponentActivity;
import androidx.activity.result.contract.ActivityResultContracts;
import androidx.camera.core.CameraSelector;
import androidx.camera.core.ImageAnalysis;
import androidx.camera.core.ImageProxy;
import androidx.camera.core.Preview;
import androidx.camera.lifecycle.ProcessCameraProvider;
import androidx.camera.view.PreviewView;
import com.google.common.util.concurrent.ListenableFuture;
import java.util.List;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import org.example.mynet.AndroidNetwork;
import org.example.mynet.Frame;
import org.example.mynet.Outputs;

/** Shows what the camera sees, with the classes that the network finds in it. */
public final class MainActivity extends ComponentActivity {
    /** Frames are classified here, one after the other; the newest is taken next. */
    private final ExecutorService worker = Executors.newSingleThreadExecutor();

    private AndroidNetwork network; // only the worker touches it
    private PreviewView view;
    private TextView text;

    @Override
    protected void onCreate(Bundle state) {
        super.onCreate(state);
        view = new PreviewView(this);
        text = new TextView(this);
        FrameLayout both = new FrameLayout(this);
        both.addView(view);
        both.addView(text, new FrameLayout.LayoutParams(-1, -2, Gravity.BOTTOM)); // as wide as its parent, as high as its text
        setContentView(both);
        registerForActivityResult(new ActivityResultContracts.RequestPermission(), granted -> {
            if (granted) start();
            else text.setText("The camera is not permitted.");
        }).launch(Manifest.permission.CAMERA);
    }

    private void start() {
        ListenableFuture<ProcessCameraProvider> future = ProcessCameraProvider.getInstance(this);
        future.addListener(() -> {
            try {
                Preview preview = new Preview.Builder().build();
                preview.setSurfaceProvider(view.getSurfaceProvider());
                ImageAnalysis analysis = new ImageAnalysis.Builder()
                        .setBackpressureStrategy(ImageAnalysis.STRATEGY_KEEP_ONLY_LATEST)
                        .build();
                analysis.setAnalyzer(worker, this::analyse);
                future.get().bindToLifecycle(this, CameraSelector.DEFAULT_BACK_CAMERA, preview, analysis);
            } catch (ExecutionException | InterruptedException | RuntimeException error) {
                text.setText(error.toString());
            }
        }, getMainExecutor());
    }

    private void analyse(ImageProxy image) {
        String said;
        try {
            if (network == null) network = new AndroidNetwork();
            long begin = System.nanoTime();
            List<Outputs.Score> scores = network.run(frame(image)).top(3);
            said = (System.nanoTime() - begin) / 1000000 + " ms, " + network.kernels();
            for (Outputs.Score each : scores) said += "\nclass " + each;
        } catch (RuntimeException error) {
            said = error.toString();
        } finally {
            image.close();
        }
        String shown = said;
        runOnUiThread(() -> text.setText(shown));
    }

    /** The frame as the sensor has it; the network's library scales, crops and rotates it. */
    private static Frame frame(ImageProxy image) {
        ImageProxy.PlaneProxy[] planes = image.getPlanes();
        return Frame.yuv420(planes[0].getBuffer(), planes[1].getBuffer(), planes[2].getBuffer(), image.getWidth(), image.getHeight(),
                planes[0].getRowStride(), planes[1].getRowStride(), planes[1].getPixelStride())
                .rotated(image.getImageInfo().getRotationDegrees());
    }

    @Override
    protected void onDestroy() {
        super.onDestroy();
        worker.execute(() -> {
            if (network != null) network.close();
        });
        worker.shutdown();
    }
}
