/* runtime.c for kernels that need what -DNEEDED_… says: `cpu` ends with the code of an init that compares it with the CPU, plus 16 if an init
 * with TVMMOBILE_ANY_CPU fails. With -DALONE it is a program without a C library. */
#define MODEL(name) cpu_##name
#include "one_step.h"
static const tvmmobile_description description = {TVMMOBILE_INTERFACE, 1, "cpu", "0", "cortex-a76", 0, 0, 0, 0, 0, 0, 64, 0, 0, 0, 0, 0};
#include "runtime.c"

int main(void) {
  static tvmmobile_instance compared, trusted;
  static const tvmmobile_options trusting = {.flags = TVMMOBILE_ANY_CPU};
  int code = cpu_init(TVMMOBILE_INTERFACE, &compared, 0);
  return cpu_init(TVMMOBILE_INTERFACE, &trusted, &trusting) ? code + 16 : code;
}

#ifdef ALONE
__asm__(".globl _start\n_start:\n  bl main\n  mov x8, 93\n  svc 0\n"); /* exit */
#endif
