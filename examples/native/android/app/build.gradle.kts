plugins {
    id("com.android.application") version "8.7.3"
}

android {
    namespace = "org.example.classifier"
    compileSdk = 35
    ndkVersion = "27.2.12479018"

    defaultConfig {
        applicationId = "org.example.classifier"
        minSdk = 24
        targetSdk = 35
        versionCode = 1
        versionName = "1"
        ndk { abiFilters += "arm64-v8a" }
        externalNativeBuild {
            cmake {
                // What `tvmmobile compile --archive --out out` wrote.
                arguments += "-DNETWORK_DIR=${rootDir.resolve("../../../out").canonicalPath}"
            }
        }
    }
    externalNativeBuild { cmake { path = file("src/main/cpp/CMakeLists.txt") } }
    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_11
        targetCompatibility = JavaVersion.VERSION_11
    }
}
