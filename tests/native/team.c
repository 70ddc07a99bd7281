/* runtime.c with steps that a sanitizer sees, in place of kernels: eight threads, each with an instance of its own or all with the same one.
 *
 * Every step reads what other threads wrote in the step before. `team RUNS THREADS SPINS SHARED OBSERVED` prints nothing if every run is
 * right, and an observer heard of each kernel once.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "interface.h"
#define MODEL(name) team_##name
#define PUBLIC
#include "runtime.c"

enum { CELLS = 61, CALLERS = 8, MOST = 4 };

typedef struct Cells {
  uint32_t first[CELLS], second[CELLS], sum;
} Cells;

static void fill(const Frame *frame, uint32_t lane, int32_t begin, int32_t end) {
  (void)lane;
  for (int32_t i = begin; i < end; ++i) ((Cells *)frame->workspace)->first[i] = ((const uint32_t *)frame->inputs[0])[i] + 1;
}

static void turn(const Frame *frame, uint32_t lane, int32_t begin, int32_t end) {
  Cells *cells = (Cells *)frame->workspace;
  (void)lane;
  for (int32_t i = begin; i < end; ++i) cells->second[i] = cells->first[CELLS - 1 - i];
}

static void add(const Frame *frame, uint32_t lane, int32_t begin, int32_t end) {
  Cells *cells = (Cells *)frame->workspace;
  (void)lane, (void)begin, (void)end;
  cells->sum = 0;
  for (int i = 0; i < CELLS; ++i) cells->sum += cells->second[i];
}

static void last(const Frame *frame, uint32_t lane, int32_t begin, int32_t end) {
  Cells *cells = (Cells *)frame->workspace;
  (void)lane;
  for (int32_t i = begin; i < end; ++i) ((uint32_t *)frame->outputs[0])[i] = cells->second[i] + cells->sum;
}

static void first_of_last(const Frame *frame, uint32_t lane, int32_t begin, int32_t end) {
  (void)begin, (void)end;
  last(frame, lane, 0, 1);
}

static void rest_of_last(const Frame *frame, uint32_t lane, int32_t begin, int32_t end) { last(frame, lane, begin + 1, end + 1); }

/* The last two write different cells, and do not wait for each other. */
static const Step steps[] = {
    {fill, CELLS, 0, 1, 0}, {turn, CELLS, 0, 1, 1}, {add, 0, 0, 1, 2}, {first_of_last, 0, 1, 0, 3}, {rest_of_last, CELLS - 1, 0, 1, 3}};
static const char *const kernels[] = {"fill", "turn", "add", "last"};
#define STEPS 5u

static const int64_t shape[] = {CELLS};
static const tvmmobile_tensor tensor[] = {{"cells", "uint32", "", shape, 1, 0, sizeof(uint32_t[CELLS]), 0, 0, 0}};
static const tvmmobile_description description = {TVMMOBILE_INTERFACE, MOST, "team", "0", "host", tensor, tensor, 1, 1, sizeof(Cells), 0, 64, 0, 0, 0, 0, 0};
#include "runtime.c"

typedef struct Caller {
  pthread_t thread;
  tvmmobile_instance own, *instance;
  long runs, told, wrong; /* told: by a run */
  uint32_t number;
} Caller;

/* What this thread's runs told: kernels in order, each before and after; or else -1. */
static _Thread_local long told;

static void observe(void *context, const char *kernel, uint32_t done) {
  bool expected = context == kernels && kernel == kernels[told / 2 % 4] && (long)done == told % 2;
  told = told < 0 || !expected ? -1 : told + 1;
}

static void *call(void *argument) {
  Caller *caller = argument;
  _Alignas(64) uint32_t input[CELLS], output[CELLS], expected[CELLS];
  _Alignas(64) Cells workspace;
  const void *inputs[] = {input};
  void *outputs[] = {output};
  uint32_t sum = 0;
  for (uint32_t i = 0; i < CELLS; ++i) sum += (input[i] = i * i + caller->number) + 1;
  for (uint32_t i = 0; i < CELLS; ++i) expected[i] = input[CELLS - 1 - i] + 1 + sum;
  for (long run = 0; run < caller->runs; ++run) {
    memset(output, 0, sizeof output);
    caller->wrong += team_run(caller->instance, inputs, outputs, &workspace, sizeof workspace, (uint32_t)(run % 3 ? 0 : 1)) != TVMMOBILE_OK;
    caller->wrong += memcmp(output, expected, sizeof output) != 0;
  }
  caller->wrong += told != caller->runs * caller->told;
  return 0;
}

int main(int count, char **words) {
  if (count != 6) return 2;
  tvmmobile_options options = {.threads = (uint32_t)atoi(words[2]), .spins = (uint32_t)atoi(words[3]), .flags = TVMMOBILE_BIG_CORES};
  bool shared = atoi(words[4]), observed = atoi(words[5]);
  static Caller callers[CALLERS];
  for (uint32_t i = 0; i < CALLERS; ++i) {
    callers[i].runs = atol(words[1]);
    callers[i].number = i;
    callers[i].told = observed ? 8 : 0;
    callers[i].instance = &callers[shared ? 0 : i].own;
    int code = shared && i ? TVMMOBILE_OK : team_init(TVMMOBILE_INTERFACE, callers[i].instance, &options);
    if (code) return puts(team_message(code)), 1;
    if (observed && !(shared && i)) callers[i].wrong += team_observe(callers[i].instance, observe, (void *)kernels) != TVMMOBILE_OK;
  }
  for (int i = 0; i < CALLERS; ++i) pthread_create(&callers[i].thread, 0, call, &callers[i]);
  for (int i = 0; i < CALLERS; ++i) pthread_join(callers[i].thread, 0);
  for (int i = 0; i < (shared ? 1 : CALLERS); ++i) callers[i].wrong += team_free(&callers[i].own) != TVMMOBILE_OK;
  for (int i = 0; i < CALLERS; ++i)
    if (callers[i].wrong) printf("caller %d: %ld wrong\n", i, callers[i].wrong);
  (void)team_describe;
  return 0;
}
