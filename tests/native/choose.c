/* runtime.c with several sets of kernels that do nothing; choose_tables.h, which the test writes, lists them as libraries do. Reads lines
 * `CORE HWCAP HWCAP2`, in hexadecimal, and prints for each the places of the set and of the reason, or `none`. `choose N`: the same for the
 * options' set N on the machine that it runs on. */
#include <stdio.h>
#include <stdlib.h>

#include "interface.h"
#define MODEL(name) choose_##name
#define PUBLIC
#include "choose_tables.h"
#include "runtime.c"

static void print(bool any, const Shown *found) {
  if (any)
    printf("%u %u\n", (unsigned)found->set, (unsigned)found->reason);
  else
    puts("none");
}

int main(int count, char **words) {
  unsigned core;
  unsigned long hwcap, hwcap2;
  Shown found;
  if (count > 1) print(choose((uint32_t)atoi(words[1]), 0, 1, false, &found), &found);
  while (scanf("%x %lx %lx", &core, &hwcap, &hwcap2) == 3) print(find_set(core, (Features){hwcap, hwcap2}, &found), &found);
  return 0;
}
