/* Runs a C library on its reference inputs and compares: check [--tolerance=SHARE] [--quantised] [--set=N] LIBRARY.so PREFIX [THREADS [RUNS]]
 *
 * `tvmmobile deploy` puts it beside libraries on a board. Without THREADS it uses all that the library was compiled for; RUNS are timed, 20
 * unless given. Ends with 5 where an output is off by more than SHARE (TOLERANCE unless given) of the reference's largest magnitude, or where
 * more than that share of its integers differ (with --quantised, bytes by more than one step); with 6 where the CPU lacks
 * instructions that the library uses; with 1 where nothing ran. With --set=N the library takes the N-th of its sets of kernels, from 1.
 * A library that takes or returns float16 is given the reference's float32 rounded, and compared in float32; one that keeps tensors between
 * calls is reset before each.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "interface.h"

enum { LINE = 64, RUNS = 20, MOST_RUNS = 10000, MOST_TENSORS = 1000, DISAGREES = 5, LACKS = 6 };
/* Types as libraries and as NumPy name them; float16 is stored as float32 in references. */
static const struct Type {
  const char *name, *numpy;
  size_t bytes;
} types[] = {{"float32", "'<f4'", 4}, {"float16", "'<f4'", 2}, {"uint8", "'|u1'", 1},
             {"int8", "'|i1'", 1},    {"int32", "'<i4'", 4},   {"int64", "'<i8'", 8}};

typedef const tvmmobile_description *(*Describe)(void);
typedef int (*Init)(uint32_t, tvmmobile_instance *, const tvmmobile_options *);
typedef int (*Run)(tvmmobile_instance *, const void *const *, void *const *, void *, size_t, uint32_t);
typedef size_t (*StateBytes)(void);
typedef int (*Reset)(tvmmobile_instance *, void *, size_t);
typedef int (*Free)(tvmmobile_instance *);
typedef const char *(*Message)(int);

static void end_with(int status, const char *place, const char *problem) {
  fprintf(stderr, "check: %s: %s\n", place, problem);
  exit(status);
}

static void fail(const char *place, const char *problem) { end_with(1, place, problem); }

/* Null if the library has none. */
static void *symbol_of(void *library, const char *prefix, const char *name) {
  char symbol[1024];
  snprintf(symbol, sizeof symbol, "%s_%s", prefix, name);
  return dlsym(library, symbol);
}

static void *function_of(void *library, const char *path, const char *prefix, const char *name) {
  void *found = symbol_of(library, prefix, name);
  if (!found) fail(path, dlerror());
  return found;
}

/* Memory of at least `bytes` as libraries want it. */
static void *aligned(size_t bytes) {
  void *memory = aligned_alloc(LINE, bytes / LINE * LINE + LINE);
  if (!memory) fail("memory", "there is too little");
  return memory;
}

static size_t number(const unsigned char *bytes) { return bytes[0] | (size_t)bytes[1] << 8; }

/* The next array of an archive as NumPy writes it, which stores them as they are: a zip header, a .npy header, values (APPNOTE.TXT 4.3.7;
 * numpy.lib.format). */
static void *next_array(FILE *archive, const char *path, const char *name, const char *type, size_t bytes) {
  unsigned char zip[30], npy[10], text[1 << 16];
  size_t length = strlen(name);
  if (fread(zip, 1, sizeof zip, archive) != sizeof zip || memcmp(zip, "PK\3\4", 4) || number(zip + 8) || number(zip + 26) != length ||
      fread(text, 1, length, archive) != length || memcmp(text, name, length) || fseek(archive, (long)number(zip + 28), SEEK_CUR) ||
      fread(npy, 1, sizeof npy, archive) != sizeof npy || memcmp(npy, "\x93NUMPY\1", 7))
    fail(path, "is not an archive of arrays as NumPy stores them");
  length = number(npy + 8);
  void *values = aligned(bytes);
  if (fread(text, 1, length, archive) != length || !memmem(text, length, type, strlen(type)) || fread(values, 1, bytes, archive) != bytes)
    fail(path, "does not hold the network's arrays");
  return values;
}

static const struct Type *type_of(const tvmmobile_tensor *tensor) {
  for (size_t i = 0; i < sizeof types / sizeof *types; ++i)
    if (!strcmp(types[i].name, tensor->type)) return &types[i];
  fail(tensor->name, "has a type that this program does not know");
  return NULL;
}

static int is_half(const tvmmobile_tensor *tensor) { return !strcmp(tensor->type, "float16"); }
static int is_real(const tvmmobile_tensor *tensor) { return !strncmp(tensor->type, "float", 5); }
static size_t elements_of(const tvmmobile_tensor *tensor) { return tensor->bytes / type_of(tensor)->bytes; }

/* The next array of a reference, for the input or output of that number among `count`. */
static void *reference_of(FILE *archive, const char *path, const tvmmobile_tensor *tensor, const char *kind, uint32_t number, uint32_t count) {
  char name[LINE];
  if (count > 1)
    snprintf(name, sizeof name, "%s%u.npy", kind, number);
  else
    snprintf(name, sizeof name, "%s.npy", kind);
  return next_array(archive, path, name, type_of(tensor)->numpy, is_half(tensor) ? elements_of(tensor) * sizeof(float) : tensor->bytes);
}

/* What a library takes for these numbers. */
static const void *as_taken(const tvmmobile_tensor *tensor, const void *values) {
  if (!is_half(tensor)) return values;
  _Float16 *halves = aligned(tensor->bytes);
  for (size_t i = 0; i < elements_of(tensor); ++i) halves[i] = (_Float16)((const float *)values)[i];
  return halves;
}

/* What it returned, as numbers. */
static const void *as_returned(const tvmmobile_tensor *tensor, const void *values) {
  if (!is_half(tensor)) return values;
  float *numbers = aligned(elements_of(tensor) * sizeof *numbers);
  for (size_t i = 0; i < elements_of(tensor); ++i) numbers[i] = ((const _Float16 *)values)[i];
  return numbers;
}

static double milliseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return 1e3 * (double)now.tv_sec + 1e-6 * (double)now.tv_nsec;
}

static int by_size(const void *a, const void *b) { return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b); }

/* Largest difference over the largest magnitude expected; what is not a number counts as infinite. */
static double error_of(const float *output, const float *expected, size_t count) {
  double most = 0, scale = 0;
  for (size_t i = 0; i < count; ++i) {
    double off = (double)output[i] - expected[i], size = expected[i];
    off = off < 0 ? -off : off, size = size < 0 ? -size : size;
    if (!(off <= most)) most = off == off ? off : 1e300;
    if (size > scale) scale = size;
  }
  return most / (scale > 0 ? scale : 1);
}

/* The share of elements that differ; of steps, which are bytes, those by more than one. */
static double share_of(const unsigned char *output, const unsigned char *expected, size_t count, const struct Type *type, int steps) {
  size_t differ = 0, bytes = type->bytes;
  int is_signed = !strcmp(type->name, "int8");
  for (size_t i = 0; i < count; ++i) {
    int off = is_signed ? (signed char)output[i] - (signed char)expected[i] : output[i] - expected[i];
    differ += steps && bytes == 1 ? off < -1 || off > 1 : memcmp(output + i * bytes, expected + i * bytes, bytes) != 0;
  }
  return (double)differ / (double)count;
}

int main(int count, char **words) {
  static const char option[] = "--tolerance=";
  double tolerance = TOLERANCE;
  int steps = 0;
  uint32_t set = 0;
  static const char set_option[] = "--set=";
  for (; count > 1 && !strncmp(words[1], "--", 2); ++words, --count) {
    if (!strcmp(words[1], "--quantised")) steps = 1;
    if (!strncmp(words[1], option, sizeof option - 1)) tolerance = atof(words[1] + sizeof option - 1);
    if (!strncmp(words[1], set_option, sizeof set_option - 1)) set = (uint32_t)atoi(words[1] + sizeof set_option - 1);
    words[1] = words[0];
  }
  static const char usage[] = "usage: %s [--tolerance=SHARE] [--quantised] [--set=N] LIBRARY.so PREFIX [THREADS [RUNS]]\n";
  if (count < 3 || count > 5) return fprintf(stderr, usage, words[0]), 1;
  const char *path = words[1], *prefix = words[2];
  void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!library) fail(path, dlerror());
  Describe describe = (Describe)function_of(library, path, prefix, "describe");
  Init init = (Init)function_of(library, path, prefix, "init");
  Run run = (Run)function_of(library, path, prefix, "run");
  Free end = (Free)function_of(library, path, prefix, "free");
  Message message = (Message)function_of(library, path, prefix, "message");
  StateBytes bytes_of = (StateBytes)symbol_of(library, prefix, "state_bytes"); /* of libraries that keep tensors between calls */
  Reset reset = (Reset)symbol_of(library, prefix, "reset");
  size_t state_bytes = bytes_of ? bytes_of() : 0;
  const tvmmobile_description *net = describe();
  if (net->interface != TVMMOBILE_INTERFACE) fail(path, "has another version of the interface");
  tvmmobile_options options = {.threads = count > 3 ? (uint32_t)atoi(words[3]) : net->threads, .flags = TVMMOBILE_SET(set)};
  int runs = count > 4 ? atoi(words[4]) : RUNS;
  if (runs < 0 || runs > MOST_RUNS) fail(words[4], "is not a number of runs");

  char reference[4096];
  size_t stem = strlen(path) > 3 ? strlen(path) - 3 : 0;
  snprintf(reference, sizeof reference, "%.*s.reference.npz", (int)stem, path);
  FILE *archive = fopen(reference, "rb");
  if (!archive) fail(reference, "cannot be opened");
  static const void *inputs[MOST_TENSORS], *expected[MOST_TENSORS];
  static void *outputs[MOST_TENSORS];
  if (net->input_count > MOST_TENSORS || net->output_count > MOST_TENSORS) fail(path, "has too many inputs or outputs");
  for (uint32_t i = 0; i < net->input_count; ++i)
    inputs[i] = as_taken(&net->inputs[i], reference_of(archive, reference, &net->inputs[i], "input", i, net->input_count));
  for (uint32_t i = 0; i < net->output_count; ++i) {
    expected[i] = reference_of(archive, reference, &net->outputs[i], "output", i, net->output_count);
    outputs[i] = aligned(net->outputs[i].bytes);
  }
  fclose(archive);
  void *workspace = aligned(net->workspace_bytes), *state = aligned(state_bytes);

  static tvmmobile_instance instance;
  static double times[1 + MOST_RUNS];
  int code = init(TVMMOBILE_INTERFACE, &instance, &options);
  for (int i = 0; !code && i <= runs; ++i) {
    if (state_bytes) code = reset(&instance, state, state_bytes);
    double begin = milliseconds();
    if (!code) code = run(&instance, inputs, outputs, workspace, net->workspace_bytes, 0);
    times[i] = milliseconds() - begin;
  }
  if (code) end_with(code == TVMMOBILE_CPU ? LACKS : 1, path, message(code));
  end(&instance);

  double error = 0;
  for (uint32_t i = 0; i < net->output_count; ++i) {
    const tvmmobile_tensor *tensor = &net->outputs[i];
    size_t count = elements_of(tensor);
    double off = is_real(tensor) ? error_of(as_returned(tensor, outputs[i]), expected[i], count)
                                 : share_of(outputs[i], expected[i], count, type_of(tensor), steps);
    if (off > error) error = off;
  }
  printf("%s, threads: %u\nerror %.2g of the reference's largest magnitude\n", net->name, options.threads ? options.threads : 1, error);
  printf("first run %.3f ms", times[0]);
  qsort(times + 1, (size_t)runs, sizeof *times, by_size);
  if (runs) printf(", then %.3f ms (median of %d)", times[1 + runs / 2], runs);
  printf(", by this machine's clock\n");
  return error <= tolerance ? 0 : DISAGREES;
}
