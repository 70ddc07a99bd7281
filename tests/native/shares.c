/* runtime.c with a step that notes who does what, in place of kernels: `shares` prints how iterations are shared.
 *
 * `shares EXTENT THREADS CPUS [LANES]` runs with that option `cpus` and prints each thread's share of EXTENT, in order of the threads.
 * `shares` alone tries many extents, numbers of threads and speeds. It prints nothing and ends with 0 if each iteration is done once, no split
 * could end sooner, and threads of equal or unknown speeds have equal shares, the last ones less.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "interface.h"
#define MODEL(name) shares_##name
#define PUBLIC
#include "runtime.c"

enum { MOST = 8 };
static int32_t begins_at[MOST], ends_at[MOST];

static void note(const Frame *frame, uint32_t lane, int32_t begin, int32_t end) {
  (void)frame;
  begins_at[lane] = begin;
  ends_at[lane] = end;
}

static Step steps[] = {{note, 0, 0, 1, 0}};
static const char *const kernels[] = {"note"};
#define STEPS 1u
static const tvmmobile_description description = {TVMMOBILE_INTERFACE, MOST, "shares", "0", "host", 0, 0, 0, 0, 0, 0, 64, 0, 0, 0, 0, 0};
#include "runtime.c"

/* Shares `extent`; returns the time of the last to finish, for `speeds`, or -1 if an iteration is done twice or not at all. */
static double shared(int32_t extent, uint32_t lanes, const uint32_t *speeds, const Instance *instance) {
  Sharing sharing = sharing_of(instance, lanes);
  double longest = 0;
  int32_t done = 0;
  steps[0].extent = extent;
  for (uint32_t lane = 0; lane < lanes; ++lane) {
    begins_at[lane] = ends_at[lane] = done;
    do_share(&steps[0], 0, lane, &sharing);
    if (begins_at[lane] != done || ends_at[lane] < done) return -1;
    done = ends_at[lane];
    double time = (double)(ends_at[lane] - begins_at[lane]) / speeds[lane];
    longest = time > longest ? time : longest;
  }
  return done == extent ? longest : -1;
}

/* The least time that any split takes: one in which some thread needs all of it. */
static double least(int32_t extent, uint32_t lanes, const uint32_t *speeds) {
  double found = -1;
  for (uint32_t lane = 0; lane < lanes; ++lane)
    for (int32_t count = 1; count <= extent; ++count) {
      double time = (double)count / speeds[lane];
      int64_t most = 0;
      for (uint32_t i = 0; i < lanes; ++i) most += (int64_t)(count * (uint64_t)speeds[i] / speeds[lane]);
      if (most < extent) continue;
      if (found < 0 || time < found) found = time;
      break;
    }
  return found;
}

static int try_all(void) {
  static const uint32_t speeds[][MOST] = {{1024, 897, 897, 897, 300, 300, 300, 300}, {300, 300, 897, 1024, 897, 7, 1024, 1},
                                          {1, 1024, 1, 1024, 1, 1024, 1, 1024},      {1023, 1024, 1, 2, 3, 5, 7, 11}};
  static const int32_t large[] = {1000, 4097, 999999, 0x7fffff00};
  int wrong = 0;
  for (uint32_t way = 0; way < sizeof speeds / sizeof *speeds; ++way)
    for (uint32_t lanes = 2; lanes <= MOST; ++lanes) {
      Instance differing = {0}, unknown = {0}, equal = {0};
      for (uint32_t i = 0; i < MOST; ++i) differing.speeds[i] = speeds[way][i], equal.speeds[i] = speeds[way][0];
      for (int32_t extent = 1; extent <= 200; ++extent) {
        double found = shared(extent, lanes, speeds[way], &differing), best = least(extent, lanes, speeds[way]);
        if (found < 0 || found > best * (1 + 1e-9)) ++wrong, printf("%d by %u, speeds %u: %g, not %g\n", extent, lanes, way, found, best);
        const Instance *const alike[] = {&unknown, &equal};
        int32_t share = (extent + (int32_t)lanes - 1) / (int32_t)lanes;
        for (int same = 0; same < 2; ++same) {
          wrong += shared(extent, lanes, speeds[way], alike[same]) < 0;
          for (uint32_t i = 0; i < lanes; ++i) {
            int32_t end = share * ((int32_t)i + 1);
            wrong += ends_at[i] != (end < extent ? end : extent);
          }
        }
      }
      for (uint32_t i = 0; i < sizeof large / sizeof *large; ++i) wrong += shared(large[i], lanes, speeds[way], &differing) < 0;
    }
  return wrong;
}

int main(int count, char **words) {
  if (count < 4) return try_all() != 0;
  static tvmmobile_instance instance;
  tvmmobile_options options = {.threads = (uint32_t)atoi(words[2]), .cpus = strtoull(words[3], 0, 0)};
  uint32_t lanes = count > 4 ? (uint32_t)atoi(words[4]) : options.threads;
  void *none[] = {0};
  steps[0].extent = atoi(words[1]);
  int code = shares_init(TVMMOBILE_INTERFACE, &instance, &options);
  if (!code) code = shares_run(&instance, (const void *const *)none, none, 0, 0, lanes);
  if (!code) code = shares_free(&instance);
  if (code) return puts(shares_message(code)), 1;
  for (uint32_t i = 0; i < lanes; ++i) printf(i + 1 < lanes ? "%d " : "%d\n", ends_at[i] - begins_at[i]);
  return 0;
}
