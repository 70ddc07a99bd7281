/* The native part of Network.java: a network, its memory and its threads, behind a handle.
 *
 * Defined for each network: PREFIX of its functions, METHODS of its Java class, IMAGES and STATES: whether it has functions for those.
 * Tensors in half precision are float32 to Java. */
#include "interface.h"
#include "image.h"
#include "java_interface.h"

#define JOINED(a, b) a##_##b
#define NAMED(a, b) JOINED(a, b)
#define NET(name) NAMED(PREFIX, name)
#define METHOD(type, name) __attribute__((visibility("default"))) type NAMED(METHODS, name)

/* Of the network's library. */
extern const tvmmobile_description *NET(describe)(void);
extern int NET(init)(uint32_t, tvmmobile_instance *, const tvmmobile_options *);
extern int NET(run)(tvmmobile_instance *, const void *const *, void *const *, void *, size_t, uint32_t);
extern int NET(free)(tvmmobile_instance *);
extern const char *NET(message)(int);
#if IMAGES
extern size_t NET(image_workspace)(uint32_t, uint32_t);
extern int NET(run_image)(tvmmobile_instance *, const tvmmobile_image *, void *const *, void *, size_t, uint32_t);
#endif
#if STATES
extern size_t NET(state_bytes)(void);
extern int NET(reset)(tvmmobile_instance *, void *, size_t);
#endif

/* Of Android's C library. aligned_alloc came with Android 9. */
extern int posix_memalign(void **, size_t, size_t);
extern void free(void *);
extern void *memset(void *, int, size_t);
extern int pthread_create(unsigned long *, const void *, void *(*)(void *), void *);
extern int pthread_join(unsigned long, void **);

typedef struct Network {
  tvmmobile_instance instance;
  void *workspace, *state;
  size_t workspace_bytes;
  void **tensors; /* inputs, then outputs, as the library has them */
  float **floats; /* of those in half precision, as Java has them; else null */
} Network;

static void *allocate(size_t bytes) {
  void *memory;
  size_t step = NET(describe)()->alignment;
  return posix_memalign(&memory, step < sizeof(void *) ? sizeof(void *) : step, bytes ? bytes : 1) ? NULL : memory;
}

static void *zeros(size_t bytes) {
  void *memory = allocate(bytes);
  return memory ? memset(memory, 0, bytes) : NULL;
}

static uint32_t tensor_count(void) { return NET(describe)()->input_count + NET(describe)()->output_count; }

static const tvmmobile_tensor *tensor_at(uint32_t place) {
  const tvmmobile_description *net = NET(describe)();
  return place < net->input_count ? &net->inputs[place] : &net->outputs[place - net->input_count];
}

static int is_half(const tvmmobile_tensor *tensor) {
  const char *wanted = "float16", *type = tensor->type;
  while (*wanted && *type == *wanted) ++type, ++wanted;
  return *type == *wanted;
}

static void complain(Java java, const char *type, const char *message) {
  Object exception = find_class(java, type);
  if (exception) throw_new(java, exception, message);
}

static void complain_of(Java java, int code) {
  const char *type = "java/lang/IllegalStateException";
  if (code == TVMMOBILE_CPU) type = "java/lang/UnsupportedOperationException";
  if (code == TVMMOBILE_MEMORY) type = "java/lang/OutOfMemoryError";
  if (code == TVMMOBILE_THREADS || (code >= TVMMOBILE_FORMAT && code <= TVMMOBILE_VALUES)) type = "java/lang/IllegalArgumentException";
  complain(java, type, NET(message)(code));
}

static void release(Network *self) {
  if (!self) return;
  for (uint32_t i = 0; i < tensor_count(); ++i) {
    if (self->tensors) free(self->tensors[i]);
    if (self->floats) free(self->floats[i]);
  }
  free(self->tensors);
  free(self->floats);
  free(self->workspace);
  free(self->state);
  free(self);
}

static int has_memory(Network *self) {
  const tvmmobile_description *net = NET(describe)();
  self->tensors = zeros(tensor_count() * sizeof *self->tensors);
  self->floats = zeros(tensor_count() * sizeof *self->floats);
  self->workspace = allocate(self->workspace_bytes = net->workspace_bytes);
  int found = self->tensors && self->floats && self->workspace;
  for (uint32_t i = 0; found && i < tensor_count(); ++i) {
    const tvmmobile_tensor *tensor = tensor_at(i);
    self->tensors[i] = zeros(tensor->bytes);
    if (is_half(tensor)) self->floats[i] = zeros(2 * tensor->bytes);
    found = self->tensors[i] && (self->floats[i] || !is_half(tensor));
  }
#if STATES
  self->state = found ? allocate(NET(state_bytes)()) : NULL;
  found = found && self->state;
#endif
  return found;
}

METHOD(int64_t, open)(Java java, Object type, int32_t threads) {
  (void)type;
  Network *self = zeros(sizeof *self);
  if (!self || !has_memory(self)) {
    release(self);
    complain(java, "java/lang/OutOfMemoryError", "no memory for the network");
    return 0;
  }
  /* Android shows a library the functions of those alone that it names as needed. The network's names none, so it is given these. */
  uint32_t flags = threads ? 0 : TVMMOBILE_FASTEST_THREADS;
  tvmmobile_options options = {.threads = (uint32_t)threads, .flags = flags, .create = pthread_create, .join = pthread_join};
  int code = NET(init)(TVMMOBILE_INTERFACE, &self->instance, &options);
#if STATES
  if (!code && (code = NET(reset)(&self->instance, self->state, NET(state_bytes)()))) NET(free)(&self->instance);
#endif
  if (!code) return (int64_t)(intptr_t)self;
  release(self);
  complain_of(java, code);
  return 0;
}

METHOD(void, free)(Java java, Object type, int64_t handle) {
  (void)java, (void)type;
  Network *self = (Network *)(intptr_t)handle;
  NET(free)(&self->instance);
  release(self);
}

/* An input's or output's memory. */
METHOD(Object, memory)(Java java, Object type, int64_t handle, int32_t place) {
  (void)type;
  Network *self = (Network *)(intptr_t)handle;
  const tvmmobile_tensor *tensor = tensor_at((uint32_t)place);
  float *floats = self->floats[place];
  return new_direct_buffer(java, floats ? floats : self->tensors[place], (int64_t)(floats ? 2 * tensor->bytes : tensor->bytes));
}

static void finish(Java java, Network *self, int code) {
  if (code) return complain_of(java, code);
  for (uint32_t i = NET(describe)()->input_count; i < tensor_count(); ++i)
    for (size_t j = 0; self->floats[i] && j < tensor_at(i)->bytes / sizeof(__fp16); ++j)
      self->floats[i][j] = ((__fp16 *)self->tensors[i])[j];
}

METHOD(void, compute)(Java java, Object type, int64_t handle) {
  (void)type;
  Network *self = (Network *)(intptr_t)handle;
  uint32_t inputs = NET(describe)()->input_count;
  for (uint32_t i = 0; i < inputs; ++i)
    for (size_t j = 0; self->floats[i] && j < tensor_at(i)->bytes / sizeof(__fp16); ++j)
      ((__fp16 *)self->tensors[i])[j] = (__fp16)self->floats[i][j];
  finish(java, self, NET(run)(&self->instance, (const void *const *)self->tensors, self->tensors + inputs, self->workspace,
                              self->workspace_bytes, 0));
}

/* Java has checked that the buffers are direct and hold the image. */
METHOD(void, see)(Java java, Object type, int64_t handle, int32_t format, int32_t width, int32_t height, int32_t turns, Object plane0,
                  Object plane1, Object plane2, int32_t stride0, int32_t stride1, int32_t stride2, int32_t step) {
  (void)type;
#if IMAGES
  Network *self = (Network *)(intptr_t)handle;
  tvmmobile_image image = {.format = (uint32_t)format, .width = (uint32_t)width, .height = (uint32_t)height, .turns = (uint32_t)turns,
                           .chroma_step = (uint32_t)step};
  const Object planes[] = {plane0, plane1, plane2};
  const int32_t strides[] = {stride0, stride1, stride2};
  for (int i = 0; i < 3; ++i) {
    image.planes[i] = buffer_address(java, planes[i]);
    image.strides[i] = (size_t)strides[i];
  }
  size_t bytes = NET(image_workspace)(image.width, image.height); /* 0 for a size that is refused below */
  if (bytes > self->workspace_bytes) {
    void *larger = allocate(bytes);
    if (!larger) return complain(java, "java/lang/OutOfMemoryError", "no memory for the image");
    free(self->workspace);
    self->workspace = larger;
    self->workspace_bytes = bytes;
  }
  finish(java, self, NET(run_image)(&self->instance, &image, self->tensors + NET(describe)()->input_count, self->workspace,
                                    self->workspace_bytes, 0));
#else
  (void)handle, (void)format, (void)width, (void)height, (void)turns, (void)plane0, (void)plane1, (void)plane2;
  (void)stride0, (void)stride1, (void)stride2, (void)step;
  complain(java, "java/lang/UnsupportedOperationException", "the network takes no images: compile it with --image");
#endif
}

METHOD(void, clear)(Java java, Object type, int64_t handle) {
  (void)type;
#if STATES
  Network *self = (Network *)(intptr_t)handle;
  int code = NET(reset)(&self->instance, self->state, NET(state_bytes)());
  if (code) complain_of(java, code);
#else
  (void)java, (void)handle;
#endif
}

/* Which of the description's sets of kernels it took (0) or why (1). */
METHOD(Object, kernels)(Java java, Object type, int64_t handle, int32_t what) {
  (void)type;
  const tvmmobile_description *net = NET(describe)();
  const uint64_t *state = ((Network *)(intptr_t)handle)->instance.state;
  return new_string(java, what ? net->reasons[state[1]] : net->sets[state[0]].core);
}

METHOD(int32_t, count)(Java java, Object type, int32_t outputs) {
  (void)java, (void)type;
  return (int32_t)(outputs ? NET(describe)()->output_count : NET(describe)()->input_count);
}

/* A tensor's name (0), type (1) or layout (2). */
METHOD(Object, text)(Java java, Object type, int32_t place, int32_t what) {
  (void)type;
  const tvmmobile_tensor *tensor = tensor_at((uint32_t)place);
  return new_string(java, what == 0 ? tensor->name : what == 2 ? tensor->layout : is_half(tensor) ? "float32" : tensor->type);
}

/* A tensor's rank (0), how many scales it has (1), their axis (2), an extent (3) or a zero point (4). */
METHOD(int64_t, number)(Java java, Object type, int32_t place, int32_t what, int32_t index) {
  (void)java, (void)type;
  const tvmmobile_tensor *tensor = tensor_at((uint32_t)place);
  switch (what) {
    case 0: return tensor->rank;
    case 1: return tensor->scale_count;
    case 2: return tensor->axis;
    case 3: return tensor->shape[index];
    default: return tensor->zero_points[index];
  }
}

METHOD(float, scale)(Java java, Object type, int32_t place, int32_t index) {
  (void)java, (void)type;
  return tensor_at((uint32_t)place)->scales[index];
}

METHOD(int32_t, threads)(Java java, Object type) {
  (void)java, (void)type;
  return (int32_t)NET(describe)()->threads;
}
