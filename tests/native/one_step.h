/* The first half of a library with one step, which does nothing: a test's program defines MODEL before it, then its description, and includes
 * runtime.c again. */
#include "interface.h"
#define PUBLIC
#include "runtime.c"

static void do_nothing(const Frame *frame, uint32_t lane, int32_t begin, int32_t end) { (void)frame, (void)lane, (void)begin, (void)end; }

static const Step steps[] = {{do_nothing, 0, 0, 1, 0}};
static const char *const kernels[] = {"do_nothing"};
#define STEPS 1u
