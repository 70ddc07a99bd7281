/* A network with one thread and four in each of Arm's rounding modes: `rounding INPUT.f32` prints where bits differ, and the modes in which
 * the result is the same as in the first. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mobilenet_v1_0.25_128_float32_t4.h"

#define NET(name) mobilenet_v1_0_25_128_##name
enum { THREADS = 4, ROUNDINGS = 4 };

static void set_rounding(uint64_t rounding) { __asm__ volatile("msr fpcr, %0" ::"r"(rounding << 22) : "memory"); }

int main(int count, char **words) {
  const tvmmobile_description *net = NET(describe)();
  size_t align = net->alignment, results = net->outputs->bytes;
  void *input, *workspace, *one, *four, *nearest;
  if (posix_memalign(&input, align, net->inputs->bytes) || posix_memalign(&workspace, align, net->workspace_bytes)) return 1;
  if (posix_memalign(&one, align, results) || posix_memalign(&four, align, results) || !(nearest = malloc(results))) return 1;
  FILE *file = count > 1 ? fopen(words[1], "rb") : 0;
  if (!file || fread(input, 1, net->inputs->bytes, file) != net->inputs->bytes) return puts("no input"), 1;

  static tvmmobile_instance instance;
  tvmmobile_options options = {.threads = THREADS};
  if (NET(init)(TVMMOBILE_INTERFACE, &instance, &options)) return puts("no threads"), 1;
  const void *inputs[] = {input};
  for (uint64_t rounding = 0; rounding < ROUNDINGS; ++rounding) {
    set_rounding(rounding);
    int code = NET(run)(&instance, inputs, &one, workspace, net->workspace_bytes, 1);
    if (!code) code = NET(run)(&instance, inputs, &four, workspace, net->workspace_bytes, THREADS);
    set_rounding(0);
    if (code) return puts(NET(message)(code)), 1;
    if (memcmp(one, four, results)) printf("rounding %d: four threads differ\n", (int)rounding);
    if (!rounding) memcpy(nearest, one, results);
    if (rounding && !memcmp(one, nearest, results)) printf("rounding %d changes nothing\n", (int)rounding);
  }
  return NET(free)(&instance);
}
