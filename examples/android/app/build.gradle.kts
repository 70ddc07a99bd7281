plugins {
    id("com.android.application") version "8.7.3"
}

android {
    namespace = "org.example.camera"
    compileSdk = 35

    defaultConfig {
        applicationId = "org.example.camera"
        minSdk = 28
        targetSdk = 35
        versionCode = 1
        versionName = "1"
        ndk { abiFilters += "arm64-v8a" }
    }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_11
        targetCompatibility = JavaVersion.VERSION_11
    }
}

dependencies {
    // What `tvmmobile package --android --name org.example.mynet` wrote.
    implementation(files("libs/mynet.aar"))
    implementation("androidx.activity:activity:1.9.3")
    implementation("androidx.camera:camera-camera2:1.4.1")
    implementation("androidx.camera:camera-lifecycle:1.4.1")
    implementation("androidx.camera:camera-view:1.4.1")
}
