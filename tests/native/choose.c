/* runtime.c with several sets of kernels that do nothing; choose_tables.h, which the test writes, lists them as libraries do. Reads lines
 * `CORE HWCAP HWCAP2`, in hexadecimal, and prints for each the places of the set and of the reason, or `none`. */
#include <stdio.h>

#include "interface.h"
#define MODEL(name) choose_##name
#define PUBLIC
#include "choose_tables.h"
#include "runtime.c"

int main(void) {
  unsigned core;
  unsigned long hwcap, hwcap2;
  while (scanf("%x %lx %lx", &core, &hwcap, &hwcap2) == 3) {
    Shown found;
    if (find_set(core, (Features){hwcap, hwcap2}, &found))
      printf("%u %u\n", (unsigned)found.set, (unsigned)found.reason);
    else
      puts("none");
  }
  return 0;
}
