/* A C library as functions that TVM's remote sessions can call: `open` loads it and starts its threads, `run` runs it once. Its kernels are
 * told to whatever `set_instrument` is given, as TVM's virtual machine would; `observable` says whether they can be.
 *
 * A library that keeps tensors between calls is reset before each run.
 *
 * Text comes as arrays of bytes with a zero at the end. `open` and `run` return the library's error code, `open` -1 where there is no such
 * library, `run` -1 where it has other inputs and outputs.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>

#include "interface.h"

/* TVMFFIAny and DLTensor, see tvm/ffi/c_api.h and dlpack.h. */
typedef struct Any {
  int32_t type, padding;
  union {
    int64_t number;
    void *pointer;
    const char *text;
  } value;
} Any;
typedef struct Tensor {
  void *data;
  int64_t device;
  int32_t rank;
  uint32_t type;
  int64_t *shape, *strides;
  uint64_t offset;
} Tensor;
enum { NONE = 0, INTEGER = 1, BOOLEAN = 2, RAW_TEXT = 8, TENSOR_OBJECT = 70, OBJECT_HEADER = 24 };
/* The agent's. */
extern int TVMFFIFunctionCall(void *function, Any *arguments, int32_t count, Any *result);
extern int TVMFFIObjectIncRef(void *object);
extern int TVMFFIObjectDecRef(void *object);

typedef const tvmmobile_description *(*Describe)(void);
typedef int (*Init)(uint32_t, tvmmobile_instance *, const tvmmobile_options *);
typedef int (*Run)(tvmmobile_instance *, const void *const *, void *const *, void *, size_t, uint32_t);
typedef size_t (*StateBytes)(void);
typedef int (*Reset)(tvmmobile_instance *, void *, size_t);
typedef int (*Observe)(tvmmobile_instance *, void (*)(void *, const char *, uint32_t), void *);

enum { MOST_TENSORS = 1000 };
static tvmmobile_instance instance;
static const tvmmobile_description *description;
static Run run_library;
static Observe observe_library; /* null: the library is older than its observers */
static Reset reset_library; /* null: the library keeps nothing between calls */
static size_t state_bytes;
static void *state;
static void *instrument;

static Tensor *tensor(const Any *value) {
  return (Tensor *)((char *)value->value.pointer + (value->type == TENSOR_OBJECT ? OBJECT_HEADER : 0));
}

static void *function_of(void *library, const char *prefix, const char *name) {
  char symbol[1024];
  snprintf(symbol, sizeof symbol, "%s_%s", prefix, name);
  return dlsym(library, symbol);
}

static int answer(Any *result, int64_t number) {
  result->type = INTEGER;
  result->padding = 0;
  result->value.number = number;
  return 0;
}

/* open(path, prefix, threads, cpus, set), the last counted from 1; 0: the CPU's */
int __tvm_ffi_open(void *self, const Any *arguments, int32_t count, Any *result) {
  (void)self, (void)count;
  void *library = dlopen(tensor(&arguments[0])->data, RTLD_NOW | RTLD_LOCAL);
  const char *prefix = tensor(&arguments[1])->data;
  Init init = library ? (Init)function_of(library, prefix, "init") : NULL;
  run_library = library ? (Run)function_of(library, prefix, "run") : NULL;
  observe_library = library ? (Observe)function_of(library, prefix, "observe") : NULL;
  Describe describe = library ? (Describe)function_of(library, prefix, "describe") : NULL;
  StateBytes bytes_of = library ? (StateBytes)function_of(library, prefix, "state_bytes") : NULL;
  if (!init || !run_library || !describe) return answer(result, -1);
  free(state);
  reset_library = bytes_of ? (Reset)function_of(library, prefix, "reset") : NULL;
  state_bytes = bytes_of ? bytes_of() : 0;
  state = bytes_of ? aligned_alloc(64, state_bytes) : NULL;
  description = describe();
  tvmmobile_options options = {.threads = (uint32_t)arguments[2].value.number, .cpus = (uint64_t)arguments[3].value.number,
                               .flags = TVMMOBILE_SET(arguments[4].value.number)};
  return answer(result, init(TVMMOBILE_INTERFACE, &instance, &options));
}

/* run(inputs…, outputs…, workspace). It is part of what is modelled: how the compiler aligns its loops must not depend on what precedes it. */
__attribute__((aligned(64))) int __tvm_ffi_run(void *self, const Any *arguments, int32_t count, Any *result) {
  (void)self;
  static const void *inputs[MOST_TENSORS];
  static void *outputs[MOST_TENSORS];
  uint32_t taken = description->input_count, returned = description->output_count;
  if (taken > MOST_TENSORS || returned > MOST_TENSORS || (uint32_t)count != taken + returned + 1) return answer(result, -1);
  for (uint32_t i = 0; i < taken; ++i) inputs[i] = tensor(&arguments[i])->data;
  for (uint32_t i = 0; i < returned; ++i) outputs[i] = tensor(&arguments[taken + i])->data;
  const Tensor *workspace = tensor(&arguments[taken + returned]);
  int code = reset_library ? reset_library(&instance, state, state_bytes) : TVMMOBILE_OK;
  if (code) return answer(result, code);
  return answer(result, run_library(&instance, inputs, outputs, workspace->data, (size_t)workspace->shape[0], 0));
}

/* As a virtual machine: (function, its name, whether it is about to run). */
static void tell(void *function, const char *kernel, uint32_t done) {
  Any arguments[] = {{.type = NONE}, {.type = RAW_TEXT, .value.text = kernel}, {.type = BOOLEAN, .value.number = !done}};
  Any ignored = {.type = NONE};
  TVMFFIFunctionCall(function, arguments, 3, &ignored);
}

/* observable() */
int __tvm_ffi_observable(void *self, const Any *arguments, int32_t count, Any *result) {
  (void)self, (void)arguments, (void)count;
  return answer(result, observe_library != NULL);
}

/* set_instrument(function or none) */
int __tvm_ffi_set_instrument(void *self, const Any *arguments, int32_t count, Any *result) {
  (void)self, (void)count;
  void *before = instrument;
  instrument = arguments[0].type == NONE ? NULL : arguments[0].value.pointer;
  if (instrument) TVMFFIObjectIncRef(instrument);
  int code = observe_library(&instance, instrument ? tell : NULL, instrument);
  if (before) TVMFFIObjectDecRef(before);
  return answer(result, code);
}
