/* Loads a C library and runs it once, marked from dlopen to the result: `load_and_run LIBRARY.so [--threads N]`, as the Python programs here.
 *
 * TVMMOBILE_PREFIX is what the library's functions begin with. image.npy and logits.npy lie beside the library.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "interface.h"

typedef const tvmmobile_description *(*Describe)(void);
typedef int (*Init)(uint32_t, tvmmobile_instance *, const tvmmobile_options *);
typedef int (*Run)(tvmmobile_instance *, const void *const *, void *const *, void *, size_t, uint32_t);

static int fail(const char *what) {
  fprintf(stderr, "load_and_run: %s\n", what);
  return 1;
}

/* The elements of an .npy file of version 1 in little-endian order, which is the machine's, from a cache line on. */
static float *elements(const char *model, const char *name, size_t *bytes) {
  char path[4096];
  snprintf(path, sizeof path, "%.*s%s", (int)(strrchr(model, '/') + 1 - model), model, name);
  FILE *file = fopen(path, "rb");
  unsigned char begin[10];
  if (!file || fread(begin, 1, sizeof begin, file) != sizeof begin) return NULL;
  long offset = 10 + begin[8] + 256 * begin[9];
  fseek(file, 0, SEEK_END);
  *bytes = (size_t)(ftell(file) - offset);
  fseek(file, offset, SEEK_SET);
  float *found = aligned_alloc(64, (*bytes + 63) / 64 * 64);
  if (!found || fread(found, 1, *bytes, file) != *bytes) return NULL;
  fclose(file);
  return found;
}

static void *function_of(void *library, const char *name) {
  char symbol[1024];
  snprintf(symbol, sizeof symbol, "%s_%s", getenv("TVMMOBILE_PREFIX"), name);
  return dlsym(library, symbol);
}

int main(int count, char **words) {
  if (count < 2 || !strchr(words[1], '/') || !getenv("TVMMOBILE_PREFIX")) return fail("usage: TVMMOBILE_PREFIX=… load_and_run FOLDER/LIBRARY.so");
  size_t bytes;
  const void *image = elements(words[1], "image.npy", &bytes);
  if (!image) return fail("image.npy cannot be read");

  prctl(0x7a110001, 0, 0, 0, 0);
  void *library = dlopen(words[1], RTLD_NOW | RTLD_LOCAL);
  if (!library) return fail(dlerror());
  Describe describe = (Describe)function_of(library, "describe");
  Init init = (Init)function_of(library, "init");
  Run run = (Run)function_of(library, "run");
  if (!describe || !init || !run) return fail("a function is missing");
  const tvmmobile_description *net = describe();
  static tvmmobile_instance instance;
  tvmmobile_options options = {.threads = count > 3 ? (uint32_t)atoi(words[3]) : 1};
  size_t size = net->outputs[0].bytes;
  float *logits = aligned_alloc(64, (size + 63) / 64 * 64);
  void *workspace = aligned_alloc(64, net->workspace_bytes);
  const void *inputs[] = {image};
  void *outputs[] = {logits};
  if (init(TVMMOBILE_INTERFACE, &instance, &options)) return fail("init fails");
  if (run(&instance, inputs, outputs, workspace, net->workspace_bytes, 0)) return fail("run fails");
  prctl(0x7a110002, 0, 0, 0, 0);

  const float *expected = elements(words[1], "logits.npy", &bytes);
  if (!expected || bytes != size) return fail("logits.npy has another shape");
  double difference = 0;
  for (size_t i = 0; i < size / sizeof *logits; i++) {
    double found = fabs((double)logits[i] - expected[i]);
    difference = found <= difference ? difference : found;
  }
  printf("largest difference from PyTorch: %.1e\n", difference);
  return 0;
}
