/* runtime.c for kernels that need what -DNEEDED_… says: `cpu` ends with the code of an init that compares it with the CPU, plus 16 if an init
 * with TVMMOBILE_ANY_CPU fails. With -DALONE it is a program without a C library. */
#include "interface.h"
#define MODEL(name) cpu_##name
#define PUBLIC
#include "runtime.c"

static void do_nothing(const Frame *frame, uint32_t lane, int32_t begin, int32_t end) { (void)frame, (void)lane, (void)begin, (void)end; }

static const Step steps[] = {{do_nothing, 0, 0, 1, 0}};
static const char *const kernels[] = {"do_nothing"};
#define STEPS 1u
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
