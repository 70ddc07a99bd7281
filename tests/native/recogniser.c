/* Prints the characters that a text recogniser's library finds in an image of raw float32: the best class of each column, without
   repetitions and blanks (class 0). */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "net.h"

static void *memory(size_t bytes, size_t alignment) { return aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment); }

int main(int count, char **words) {
  const tvmmobile_description *about = net_describe();
  const tvmmobile_tensor *taken = about->inputs, *returned = about->outputs;
  float *image = memory(taken->bytes, about->alignment), *scores = memory(returned->bytes, about->alignment);
  void *workspace = memory(about->workspace_bytes, about->alignment), *outputs[] = {scores};
  FILE *file = count == 2 ? fopen(words[1], "rb") : NULL;
  if (!file || fread(image, 1, taken->bytes, file) != taken->bytes) return fputs("usage: recogniser INPUT.f32\n", stderr), 2;
  fclose(file);
  static tvmmobile_instance instance;
  int code = net_init(TVMMOBILE_INTERFACE, &instance, NULL);
  const void *inputs[] = {image};
  if (!code) code = net_run(&instance, inputs, outputs, workspace, about->workspace_bytes, 0);
  if (code) return fprintf(stderr, "%s\n", net_message(code)), 1;
  const int64_t classes = returned->shape[returned->rank - 1], columns = returned->shape[returned->rank - 2];
  for (int64_t column = 0, last = 0; column < columns; ++column) {
    const float *score = scores + column * classes;
    int64_t best = 0;
    for (int64_t i = 1; i < classes; ++i)
      if (score[i] > score[best]) best = i;
    if (best && best != last) printf("%d\n", (int)best);
    last = best;
  }
  return 0;
}
