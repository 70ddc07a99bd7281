package org.example.network;

import android.graphics.Bitmap;
import android.graphics.ImageDecoder;
import android.net.Uri;
import com.facebook.react.bridge.Arguments;
import com.facebook.react.bridge.Promise;
import com.facebook.react.bridge.ReactApplicationContext;
import com.facebook.react.bridge.ReactContextBaseJavaModule;
import com.facebook.react.bridge.ReactMethod;
import com.facebook.react.bridge.WritableArray;
import com.facebook.react.bridge.WritableMap;
import java.io.IOException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import org.example.mynet.AndroidNetwork;
import org.example.mynet.Outputs;

/** The network as JavaScript sees it: {@code NativeModules.MyNet}. */
public final class MyNetModule extends ReactContextBaseJavaModule {
    private final ReactApplicationContext context;
    /** Pictures are decoded and classified here, one after the other. */
    private final ExecutorService worker = Executors.newSingleThreadExecutor();

    private AndroidNetwork network; // only the worker touches it

    MyNetModule(ReactApplicationContext context) {
        super(context);
        this.context = context;
    }

    @Override
    public String getName() {
        return "MyNet";
    }

    /** The likeliest classes of the picture at an address. */
    @ReactMethod
    public void classify(String uri, double wanted, Promise promise) {
        worker.execute(() -> {
            try {
                if (network == null) network = new AndroidNetwork();
                promise.resolve(listed(network.run(picture(Uri.parse(uri))), (int) wanted));
            } catch (IOException | RuntimeException error) {
                promise.reject("mynet", error.getMessage(), error);
            }
        });
    }

    @Override
    public void invalidate() {
        worker.execute(() -> {
            if (network != null) network.close();
            network = null;
        });
        worker.shutdown();
        super.invalidate();
    }

    /** Rotated as its EXIF data says; in memory that Java can read. */
    private Bitmap picture(Uri uri) throws IOException {
        ImageDecoder.Source source = ImageDecoder.createSource(context.getContentResolver(), uri);
        return ImageDecoder.decodeBitmap(source, (decoder, info, from) -> decoder.setAllocator(ImageDecoder.ALLOCATOR_SOFTWARE));
    }

    private static WritableArray listed(Outputs outputs, int wanted) {
        WritableArray scores = Arguments.createArray();
        for (Outputs.Score each : outputs.top(wanted)) {
            WritableMap score = Arguments.createMap();
            score.putInt("index", each.index);
            score.putDouble("score", each.score);
            score.putDouble("probability", each.probability);
            scores.pushMap(score);
        }
        return scores;
    }
}
