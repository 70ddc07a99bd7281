/* The native part of Classifier.java: a network, its memory and its threads, behind a handle. */
#include <jni.h>
#include <pthread.h>
#include <stdlib.h>

#include "mobilenet_v1_0.25_128_float32_t4.h"

#define NET(name) mobilenet_v1_0_25_128_##name
#define METHOD(type, name) JNIEXPORT type JNICALL Java_org_example_classifier_Classifier_##name

typedef struct Classifier {
  tvmmobile_instance instance;
  void *input, *output, *workspace;
} Classifier;

/* Android shows a library the functions of those alone that it names as needed. The network's names none: it is given these. */
static int create(unsigned long *thread, const void *attributes, void *(*begin)(void *), void *argument) {
  return pthread_create((pthread_t *)thread, attributes, begin, argument);
}

static int join(unsigned long thread, void **result) { return pthread_join((pthread_t)thread, result); }

static void complain(JNIEnv *env, const char *type, const char *message) {
  jclass exception = (*env)->FindClass(env, type);
  if (exception) (*env)->ThrowNew(env, exception, message);
}

/* aligned_alloc came with Android 9. */
static void *allocate(size_t bytes) {
  void *memory = NULL;
  return posix_memalign(&memory, NET(describe)()->alignment, bytes) ? NULL : memory;
}

static void release(Classifier *self) {
  if (!self) return;
  free(self->input);
  free(self->output);
  free(self->workspace);
  free(self);
}

METHOD(jlong, nativeOpen)(JNIEnv *env, jclass type, jint threads) {
  (void)type;
  const tvmmobile_description *net = NET(describe)();
  Classifier *self = calloc(1, sizeof *self);
  if (self) {
    self->input = allocate(net->inputs->bytes);
    self->output = allocate(net->outputs->bytes);
    self->workspace = allocate(net->workspace_bytes);
  }
  if (!self || !self->input || !self->output || !self->workspace) {
    release(self);
    complain(env, "java/lang/OutOfMemoryError", "no memory for the network");
    return 0;
  }
  tvmmobile_options options = {.threads = (uint32_t)threads, .create = create, .join = join};
  int code = NET(init)(TVMMOBILE_INTERFACE, &self->instance, &options);
  if (!code) return (jlong)(intptr_t)self;
  release(self);
  complain(env, "java/lang/IllegalArgumentException", NET(message)(code));
  return 0;
}

static jsize floats_in(const tvmmobile_tensor *tensor) { return (jsize)(tensor->bytes / sizeof(jfloat)); }

METHOD(jint, nativeInputs)(JNIEnv *env, jclass type) {
  (void)env, (void)type;
  return floats_in(NET(describe)()->inputs);
}

METHOD(jint, nativeOutputs)(JNIEnv *env, jclass type) {
  (void)env, (void)type;
  return floats_in(NET(describe)()->outputs);
}

METHOD(void, nativeRun)(JNIEnv *env, jclass type, jlong handle, jfloatArray input, jfloatArray scores) {
  (void)type;
  Classifier *self = (Classifier *)(intptr_t)handle;
  const tvmmobile_description *net = NET(describe)();
  (*env)->GetFloatArrayRegion(env, input, 0, floats_in(net->inputs), self->input);
  if ((*env)->ExceptionCheck(env)) return; /* the array is too short */
  const void *inputs[] = {self->input};
  void *outputs[] = {self->output};
  int code = NET(run)(&self->instance, inputs, outputs, self->workspace, net->workspace_bytes, 0);
  if (code)
    complain(env, "java/lang/IllegalStateException", NET(message)(code));
  else
    (*env)->SetFloatArrayRegion(env, scores, 0, floats_in(net->outputs), self->output);
}

METHOD(void, nativeClose)(JNIEnv *env, jclass type, jlong handle) {
  (void)env, (void)type;
  Classifier *self = (Classifier *)(intptr_t)handle;
  NET(free)(&self->instance);
  release(self);
}
