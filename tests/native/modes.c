/* runtime.c with steps in floats, in place of kernels: every thread computes as run's caller does, whatever that is set to at the time.
 *
 * `modes` prints what one thread, the library's four and a pool of the program's compute differently, and nothing if all agree; and one line
 * for each mode that changes no result.
 */
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "interface.h"
#define MODEL(name) modes_##name
#define PUBLIC
#include "runtime.c"

enum { CELLS = 64 };

/* Subnormal products, sums that are rounded, and a NaN with a payload. */
static void compute(const Frame *frame, uint32_t lane, int32_t begin, int32_t end) {
  const volatile float *in = frame->inputs[0];
  float *out = frame->outputs[0];
  (void)lane;
  for (int32_t i = begin; i < end; ++i) {
    float small = in[i] * 1e-38f, sum = in[i] / 3 + in[CELLS - 1 - i] / 7;
    out[i] = i % 3 == 0 ? small : i % 3 == 1 ? sum : in[CELLS] + in[i];
  }
}

static const Step steps[] = {{compute, CELLS, 0, 1, 0}};
static const char *const kernels[] = {"compute"};
#define STEPS 1u

static const int64_t shape[] = {CELLS + 1}, result[] = {CELLS};
static const tvmmobile_tensor tensors[] = {{"input", "float32", "", shape, 1, 0, sizeof(float[CELLS + 1]), 0, 0, 0},
                                           {"output", "float32", "", result, 1, 0, sizeof(float[CELLS]), 0, 0, 0}};
static const tvmmobile_description description = {TVMMOBILE_INTERFACE, 4, "modes", "0", "host", tensors, tensors + 1, 1, 1, 0, 0, 64, 0, 0, 0, 0, 0};
#include "runtime.c"

#if defined(__aarch64__)
static const uint64_t modes[] = {0, 1u << 24 /* FZ */, 1u << 22 /* up */, 2u << 22 /* down */, 3u << 22 /* to zero */, 1u << 25 /* DN */};
#else
static const uint64_t modes[] = {0x1f80, 0x9f80 /* FTZ */, 0x5f80 /* up */, 0x3f80 /* down */, 0x7f80 /* to zero */};
#endif
enum { MODES = sizeof modes / sizeof *modes };

/* One thread after another, each a new one in the default mode, and whether it stays in that. */
typedef struct Piece {
  tvmmobile_work work;
  void *data;
  uint32_t number;
  int kept;
} Piece;

static void *do_piece(void *argument) {
  Piece *piece = argument;
  set_float_mode(modes[0]);
  piece->work(piece->data, piece->number);
  piece->kept = float_mode() == modes[0];
  return 0;
}

static void pool(void *context, tvmmobile_work work, void *data, uint32_t count) {
  for (uint32_t i = 0; i < count; ++i) {
    Piece piece = {work, data, i, 0};
    pthread_t thread;
    if (pthread_create(&thread, 0, do_piece, &piece) || pthread_join(thread, 0) || !piece.kept) *(int *)context = 1;
  }
}

int main(void) {
  static _Alignas(64) float in[CELLS + 1], out[3][MODES][CELLS];
  const void *inputs[] = {in};
  int spoiled = 0;
  uint32_t payload = 0x7fc12345;
  for (int i = 0; i < CELLS; ++i) in[i] = 0.1f + 0.01f * (float)i;
  memcpy(&in[CELLS], &payload, sizeof payload);
  for (int way = 0; way < 3; ++way) {
    static tvmmobile_instance instance;
    tvmmobile_options options = {.threads = way ? 4 : 1, .parallel = way == 2 ? pool : 0, .pool = &spoiled};
    int code = modes_init(TVMMOBILE_INTERFACE, &instance, &options);
    for (int mode = 0; !code && mode < MODES; ++mode) {
      void *outputs[] = {out[way][mode]};
      set_float_mode(modes[mode]);
      code = modes_run(&instance, inputs, outputs, 0, 0, 0);
      set_float_mode(modes[0]);
    }
    if (code) return puts(modes_message(code)), 1;
    modes_free(&instance);
  }
  for (int mode = 0; mode < MODES; ++mode) {
    for (int way = 1; way < 3; ++way)
      if (memcmp(out[0][mode], out[way][mode], sizeof out[0][mode])) printf("mode %d: %s differ\n", mode, way == 1 ? "four threads" : "a pool's");
    if (mode && !memcmp(out[0][0], out[0][mode], sizeof out[0][0])) printf("mode %d changes nothing\n", mode);
  }
  if (spoiled) puts("a pool's thread has another mode than before");
  return 0;
}
