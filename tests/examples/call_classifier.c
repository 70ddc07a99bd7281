/* Calls the app's native part as Java would, with an environment of its own: call_classifier LIBRARY.so INPUT.f32 THREADS
 *
 * For any C library, Android's included: it declares itself what it calls. */
#include <jni.h>
#include <stddef.h>

#define METHOD(type, name, ...)                     \
  type (*name)(JNIEnv *, jclass, ##__VA_ARGS__) =   \
      (type (*)(JNIEnv *, jclass, ##__VA_ARGS__))dlsym(library, "Java_org_example_classifier_Classifier_" #name)

int printf(const char *, ...);
int puts(const char *);
int atoi(const char *);
void *calloc(size_t, size_t);
void *fopen(const char *, const char *);
size_t fread(void *, size_t, size_t, void *);
void *dlopen(const char *, int);
void *dlsym(void *, const char *);
char *dlerror(void);

/* What stands for a float[]; a class is its name. */
typedef struct Array {
  jsize length;
  jfloat *values;
} Array;

static int thrown;

static jclass find_class(JNIEnv *env, const char *name) { return (void)env, (jclass)name; }

static jint throw_new(JNIEnv *env, jclass type, const char *message) {
  (void)env;
  thrown = 1;
  return printf("%s: %s\n", (const char *)type, message) < 0;
}

static jboolean exception_check(JNIEnv *env) { return (void)env, (jboolean)thrown; }

static jfloat *region(JNIEnv *env, jfloatArray array, jsize start, jsize length) {
  Array *self = (Array *)array;
  if (start >= 0 && length >= 0 && start + length <= self->length) return self->values + start;
  throw_new(env, "java/lang/ArrayIndexOutOfBoundsException", "a float[] is too short");
  return 0;
}

static void get_region(JNIEnv *env, jfloatArray array, jsize start, jsize length, jfloat *to) {
  const jfloat *from = region(env, array, start, length);
  for (jsize i = 0; from && i < length; ++i) to[i] = from[i];
}

static void set_region(JNIEnv *env, jfloatArray array, jsize start, jsize length, const jfloat *from) {
  jfloat *to = region(env, array, start, length);
  for (jsize i = 0; to && i < length; ++i) to[i] = from[i];
}

int main(int count, char **words) {
  void *library = count == 4 ? dlopen(words[1], 2 /* RTLD_NOW */) : 0;
  if (!library) return puts(dlerror()), 1;
  METHOD(jlong, nativeOpen, jint);
  METHOD(jint, nativeInputs);
  METHOD(jint, nativeOutputs);
  METHOD(void, nativeRun, jlong, jfloatArray, jfloatArray);
  METHOD(void, nativeClose, jlong);
  const struct JNINativeInterface functions = {.FindClass = find_class,
                                               .ThrowNew = throw_new,
                                               .ExceptionCheck = exception_check,
                                               .GetFloatArrayRegion = get_region,
                                               .SetFloatArrayRegion = set_region};
  JNIEnv env = &functions;

  Array input = {nativeInputs(&env, 0), 0}, scores = {nativeOutputs(&env, 0), 0};
  input.values = calloc((size_t)input.length, sizeof(jfloat));
  scores.values = calloc((size_t)scores.length, sizeof(jfloat));
  void *file = fopen(words[2], "rb");
  if (!file || fread(input.values, sizeof(jfloat), (size_t)input.length, file) != (size_t)input.length) return puts("no input"), 1;

  jlong handle = nativeOpen(&env, 0, atoi(words[3]));
  if (!handle) return 1;
  nativeRun(&env, 0, handle, (jfloatArray)&input, (jfloatArray)&scores);
  int best = 0;
  for (int i = 1; i < scores.length; ++i)
    if (scores.values[i] > scores.values[best]) best = i;
  printf("class %d: %.9g\n", best, scores.values[best]);
  input.length = 3;
  nativeRun(&env, 0, handle, (jfloatArray)&input, (jfloatArray)&scores);
  nativeClose(&env, 0, handle);
  return !thrown;
}
