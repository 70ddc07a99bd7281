/* Streams a sound through the library of a voice detector and prints the probability of speech in each chunk: speech SOUND.f32 CHUNK
 *
 * The network takes the end of the chunk before in front of each chunk, and its state, of which it returns the next; or the library keeps it.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "net.h"

static void *zeros(size_t bytes, size_t alignment) {
  size_t whole = (bytes + alignment - 1) / alignment * alignment;
  return memset(aligned_alloc(alignment, whole), 0, whole);
}

int main(int count, char **words) {
  const tvmmobile_description *net = net_describe();
  FILE *sound = count == 3 ? fopen(words[1], "rb") : NULL;
  if (!sound) return fputs("usage: speech SOUND.f32 CHUNK\n", stderr), 1;
  size_t chunk = (size_t)atoi(words[2]), before = net->inputs[0].bytes / sizeof(float) - chunk;
  float *input = zeros(net->inputs[0].bytes, net->alignment), *probability = zeros(net->outputs[0].bytes, net->alignment);
  void *workspace = zeros(net->workspace_bytes, net->alignment);
  static tvmmobile_instance instance;
  int code = net_init(TVMMOBILE_INTERFACE, &instance, NULL);
#ifdef STATEFUL
  if (!code) code = net_reset(&instance, zeros(net_state_bytes(), net->alignment), net_state_bytes());
#else
  void *state = zeros(net->inputs[1].bytes, net->alignment), *next = zeros(net->outputs[1].bytes, net->alignment);
#endif
  while (!code && fread(input + before, sizeof *input, chunk, sound) == chunk) {
#ifdef STATEFUL
    const void *inputs[] = {input};
    void *outputs[] = {probability};
#else
    const void *inputs[] = {input, state};
    void *outputs[] = {probability, next}, *old = state;
    state = next, next = old;
#endif
    code = net_run(&instance, inputs, outputs, workspace, net->workspace_bytes, 0);
    if (!code) printf("%.9g\n", *probability);
    memmove(input, input + chunk, before * sizeof *input);
  }
  if (code) return fprintf(stderr, "%s\n", net_message(code)), 1;
  net_free(&instance);
  return 0;
}
