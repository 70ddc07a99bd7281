/* Prints the boxes that a detector's library finds in an image of raw float32: class, score, corners. */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net.h"

static void *memory(size_t bytes, size_t alignment) { return aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment); }

static const void *output(const tvmmobile_description *about, void *const *outputs, const char *name) {
  for (uint32_t i = 0; i < about->output_count; ++i)
    if (!strcmp(about->outputs[i].name, name)) return outputs[i];
  exit(2);
}

int main(int count, char **words) {
  const tvmmobile_description *about = net_describe();
  const size_t bytes = about->inputs[0].bytes;
  float *image = memory(bytes, about->alignment);
  void *workspace = memory(about->workspace_bytes, about->alignment), *outputs[8];
  FILE *file = count == 2 ? fopen(words[1], "rb") : NULL;
  if (!file || fread(image, 1, bytes, file) != bytes) return fputs("usage: detector INPUT.f32\n", stderr), 2;
  fclose(file);
  for (uint32_t i = 0; i < about->output_count; ++i) outputs[i] = memory(about->outputs[i].bytes, about->alignment);
  static tvmmobile_instance instance;
  int code = net_init(TVMMOBILE_INTERFACE, &instance, NULL);
  const void *inputs[] = {image};
  if (!code) code = net_run(&instance, inputs, outputs, workspace, about->workspace_bytes, 0);
  if (code) return fprintf(stderr, "%s\n", net_message(code)), 1;
  const float *box = output(about, outputs, "boxes"), *score = output(about, outputs, "scores");
  const int64_t *label = output(about, outputs, "labels");
  for (int64_t i = 0; i < *(const int64_t *)output(about, outputs, "boxes/count"); ++i)
    printf("%d %.9g %.9g %.9g %.9g %.9g\n", (int)label[i], score[i], box[4 * i], box[4 * i + 1], box[4 * i + 2], box[4 * i + 3]);
  return 0;
}
