/* scaling.c and image.c with one step that copies the network's input to its output, so that a test sees it.
 *
 * Cases come on stdin, each the numbers of `Case` and the bytes of its planes, which get memory of exactly that size. For each, a code goes to
 * stdout and, if it is 0, the output. An instance of THREADS threads serves all of them, in one workspace that is as large as image_workspace
 * says for the case.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "interface.h"
#include "image.h"
#define MODEL(name) frames_##name
#define PUBLIC
#include "runtime.c"

#define IMAGE_SHORTER (IMAGE_SIDE * 8 / 7)
enum { CELLS = 3 * IMAGE_SIDE * IMAGE_SIDE, MOST = 3 };
static const float image_mean[] = {0.485f, 0.456f, 0.406f}, image_std[] = {0.229f, 0.224f, 0.225f};
static const int64_t shape[] = {1, 3, IMAGE_SIDE, IMAGE_SIDE};
static const tvmmobile_tensor tensor[] = {{"image", "float32", "NCHW", shape, 4, 0, CELLS * sizeof(float), 0, 0, 0}};
static const tvmmobile_description description = {TVMMOBILE_INTERFACE, MOST, "frames", "0", "host", tensor, tensor, 1, 1, 64, 0, 64, 0, 0, 0, 0, 0};

static void copy(const Frame *frame, uint32_t lane, int32_t begin, int32_t end) {
  (void)lane;
  for (int32_t i = begin; i < end; ++i) ((float *)frame->outputs[0])[i] = ((const float *)frame->inputs[0])[i];
}

#include "scaling.c"
static const Step steps[] = {IMAGE_STEP_LIST{copy, CELLS, 0, 1, 1}};
static const char *const kernels[] = {IMAGE_KERNEL "copy"};
#define STEPS (IMAGE_STEPS + 1)
#include "runtime.c"
#include "image.c"

typedef struct Case {
  uint32_t format, width, height, turns, chroma_step, reserved, threads, strides[3], bytes[3];
} Case;

static void *lines(size_t bytes) { return aligned_alloc(64, (bytes + 63) / 64 * 64); }

int main(int count, char **words) {
  tvmmobile_options options = {.threads = count > 1 ? (uint32_t)atoi(words[1]) : 1};
  static tvmmobile_instance instance;
  float *output = lines(CELLS * sizeof *output);
  void *outputs[] = {output};
  Case given;
  if (frames_init(TVMMOBILE_INTERFACE, &instance, &options)) return 1;
  while (fread(&given, sizeof given, 1, stdin) == 1) {
    tvmmobile_image image = {given.format, given.width, given.height, given.turns, {0}, {0}, given.chroma_step, given.reserved};
    uint8_t *planes[3] = {0};
    for (int i = 0; i < 3; ++i) {
      image.strides[i] = given.strides[i];
      image.planes[i] = planes[i] = given.bytes[i] ? malloc(given.bytes[i]) : NULL;
      if (fread(planes[i], 1, given.bytes[i], stdin) != given.bytes[i]) return 1;
    }
    size_t bytes = frames_image_workspace(given.width, given.height);
    void *workspace = lines(bytes ? bytes : 64);
    if (bytes) memset(workspace, 0xFF, bytes);
    int32_t code = frames_run_image(&instance, &image, outputs, workspace, bytes, given.threads);
    fwrite(&code, sizeof code, 1, stdout);
    if (!code) fwrite(output, sizeof *output, CELLS, stdout);
    free(workspace);
    for (int i = 0; i < 3; ++i) free(planes[i]);
  }
  frames_free(&instance);
  free(output);
  (void)frames_describe, (void)frames_run, (void)frames_message, (void)frames_top;
  return 0;
}
