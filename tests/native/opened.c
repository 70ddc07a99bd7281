/* runtime.c with a stand-in for the system's calls: ends with 0 if every file is opened so that programs which others start do not get it. */
#include <stdarg.h>

#define MODEL(name) opened_##name
#include "one_step.h"
static const tvmmobile_description description = {TVMMOBILE_INTERFACE, 1, "opened", "0", "none", 0, 0, 0, 0, 0, 0, 64, 0, 0, 0, 0, 0};
#include "runtime.c"

static int opened, inherited;

long syscall(long number, ...) {
  va_list words;
  va_start(words, number);
  (void)va_arg(words, long), (void)va_arg(words, long);
  if (number == SYS_openat) ++opened, inherited += !(va_arg(words, long) & 02000000);
  va_end(words);
  return -1;
}

int main(void) {
  static tvmmobile_instance instance;
  static const tvmmobile_options options = {.threads = 1, .flags = TVMMOBILE_BIG_CORES};
  if (opened_init(TVMMOBILE_INTERFACE, &instance, &options) || !opened) return 2;
  return inherited != 0;
}
