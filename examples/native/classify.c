#include "mobilenet_v1_0.25_128_float32_t4.h"
#include <stdio.h>
#include <stdlib.h>

#define NET(name) mobilenet_v1_0_25_128_##name

static int fail(int code) {
  fprintf(stderr, "%s\n", NET(message)(code));
  return 1;
}

int main(int count, char **words) {
  const tvmmobile_description *net = NET(describe)();
  size_t lines = net->alignment, in = net->inputs[0].bytes, out = net->outputs[0].bytes;
  /* aligned_alloc takes multiples of the alignment. */
  float *input = aligned_alloc(lines, (in + lines - 1) / lines * lines);
  float *output = aligned_alloc(lines, (out + lines - 1) / lines * lines);
  void *workspace = aligned_alloc(lines, net->workspace_bytes);
  FILE *file = count == 3 ? fopen(words[1], "rb") : NULL;
  if (!file || fread(input, 1, in, file) != in) return fputs("usage: classify INPUT.f32 THREADS\n", stderr), 1;
  fclose(file);

  static tvmmobile_instance instance;
  tvmmobile_options options = {.threads = (uint32_t)atoi(words[2])};
  int code = NET(init)(TVMMOBILE_INTERFACE, &instance, &options);
  if (code) return fail(code);
  const void *inputs[] = {input};
  void *outputs[] = {output};
  code = NET(run)(&instance, inputs, outputs, workspace, net->workspace_bytes, 0);
  if (code) return fail(code);
  NET(free)(&instance);

  size_t best = 0;
  for (size_t i = 1; i < out / sizeof *output; ++i)
    if (output[i] > output[best]) best = i;
  printf("class %zu: %.9g\n", best, output[best]);
  return 0;
}
