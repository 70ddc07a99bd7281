/* runtime.c with one step that does nothing: `fastest THREADS FLAGS CPUS NUMBER` initialises an instance whose kernels are fastest with NUMBER
 * threads, of at most eight, and prints how many it has and, in hexadecimal, the CPUs that they are pinned to. Ends with init's code.
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#define MODEL(name) fastest_##name
#include "one_step.h"

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
