/* Loads a C library: `taken LIBRARY.so PREFIX [FLAGS [CPUS]]` runs it once on numbers that are the same everywhere and prints the device whose kernels
 * it took, why, the time that init took in microseconds, a hash of the outputs' bits, and the number of threads: 1, or with the flag
 * TVMMOBILE_FASTEST_THREADS what that comes to, and how many KiB of the library are in memory. Ends with init's
 * code. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "interface.h"

static void *library;
static const char *prefix;

static void *function_of(const char *name) {
  char symbol[256];
  snprintf(symbol, sizeof symbol, "%s_%s", prefix, name);
  return dlsym(library, symbol);
}

static void *memory(size_t bytes) { return aligned_alloc(64, bytes / 64 * 64 + 64); }

static double microseconds(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return 1e6 * (double)now.tv_sec + 1e-3 * (double)now.tv_nsec;
}

/* KiB of the library's files that are in this process's memory. QEMU answers for /proc/self by itself, and knows no such numbers. */
static unsigned long resident(const char *path) {
  char line[4096], *real = realpath(path, 0);
  unsigned long whole = 0, one;
  bool ours = false;
  FILE *maps = fopen("/proc/thread-self/smaps", "r");
  while (maps && fgets(line, sizeof line, maps)) {
    if (sscanf(line, "Rss: %lu kB", &one) == 1)
      whole += ours ? one : 0;
    else if (strchr(line, '-') && strchr(line, '-') < strchr(line, ' '))
      ours = strstr(line, real) != 0;
  }
  return whole;
}

int main(int count, char **words) {
  library = dlopen(words[1], RTLD_NOW | RTLD_LOCAL);
  if (!library) return fprintf(stderr, "%s\n", dlerror()), 99;
  prefix = words[2];
  const tvmmobile_description *net = ((const tvmmobile_description *(*)(void))function_of("describe"))();
  tvmmobile_options options = {.flags = count > 3 ? (uint32_t)strtoul(words[3], 0, 0) : 0, .cpus = count > 4 ? strtoul(words[4], 0, 0) : 0};
  options.threads = options.flags & TVMMOBILE_FASTEST_THREADS ? 0 : 1;
  static tvmmobile_instance instance;
  double begin = microseconds();
  int code = ((int (*)(uint32_t, tvmmobile_instance *, const tvmmobile_options *))function_of("init"))(TVMMOBILE_INTERFACE, &instance, &options);
  double took = microseconds() - begin;
  if (code) return puts(((const char *(*)(int))function_of("message"))(code)), code;
  const tvmmobile_set *set = &net->sets[instance.state[0]];
  float *input = memory(net->inputs[0].bytes);
  unsigned char *output = memory(net->outputs[0].bytes);
  uint32_t number = 1, hash = 2166136261u;
  for (size_t i = 0; i < net->inputs[0].bytes / sizeof *input; ++i) {
    number = number * 1664525u + 1013904223u;
    input[i] = (float)(number >> 8) * 0x1p-23f - 1.0f;
  }
  /* Its own workspace suffices, and no less. */
  size_t least = set->workspace_bytes;
  int (*run)(tvmmobile_instance *, const void *const *, void *const *, void *, size_t, uint32_t) =
      (int (*)(tvmmobile_instance *, const void *const *, void *const *, void *, size_t, uint32_t))function_of("run");
  const void *inputs[] = {input};
  void *outputs[] = {output}, *workspace = memory(least);
  if (least && run(&instance, inputs, outputs, workspace, least - 1, 0) != TVMMOBILE_WORKSPACE) return 98;
  if (run(&instance, inputs, outputs, workspace, least, 0)) return 97;
  for (size_t i = 0; i < net->outputs[0].bytes; ++i) hash = (hash ^ output[i]) * 16777619u;
  printf("%s | %s | %.0f | %08x | %u | %lu\n", set->device, net->reasons[instance.state[1]], took, hash, (unsigned)instance.state[2], resident(words[1]));
  return 0;
}
