/* runtime.c with one step that does nothing: `fastest THREADS FLAGS CPUS NUMBER` initialises an instance whose kernels are fastest with NUMBER
 * threads, of at most eight, and prints how many it has and, in hexadecimal, the CPUs that they are pinned to. Ends with init's code.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "interface.h"
#define MODEL(name) fastest_##name
#define PUBLIC
#include "runtime.c"

static void nothing(const Frame *frame, uint32_t lane, int32_t begin, int32_t end) { (void)frame, (void)lane, (void)begin, (void)end; }

static const Step steps[] = {{nothing, 0, 0, 1, 0}};
static const char *const kernels[] = {"nothing"};
#define STEPS 1u

static uint32_t numbers[1];
static const tvmmobile_description description = {TVMMOBILE_INTERFACE, 8, "fastest", "0", "host", 0, 0, 0, 0, 0, 0, 64, 0, 0, 1, numbers, 0};
#include "runtime.c"

int main(int count, char **words) {
  if (count != 5) return 99;
  static tvmmobile_instance instance;
  tvmmobile_options options = {.threads = (uint32_t)atoi(words[1]), .flags = (uint32_t)atoi(words[2]), .cpus = strtoull(words[3], 0, 0)};
  numbers[0] = (uint32_t)atoi(words[4]);
  int code = fastest_init(TVMMOBILE_INTERFACE, &instance, &options);
  if (code) return puts(fastest_message(code)), code;
  printf("%u %llx\n", (unsigned)instance.state[2], (unsigned long long)instance_in(&instance)->cpus);
  (void)fastest_describe, (void)fastest_run, (void)fastest_observe;
  return fastest_free(&instance);
}
