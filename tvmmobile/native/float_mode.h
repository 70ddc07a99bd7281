/* How a thread computes with real numbers: the rounding mode, whether subnormal numbers become zeros, and which NaNs it returns. Every
 * thread has a mode of its own; those that share a run take the mode of its caller. */
#if defined(__aarch64__)
#define DEFAULT_FLOAT_MODE 0
static uint64_t float_mode(void) {
  uint64_t mode;
  __asm__ volatile("mrs %0, fpcr" : "=r"(mode));
  return mode;
}

static void set_float_mode(uint64_t mode) { __asm__ volatile("msr fpcr, %0" ::"r"(mode) : "memory"); }
#elif defined(__x86_64__)
#define DEFAULT_FLOAT_MODE 0x1f80 /* no exception interrupts */
#define FLOAT_FLAGS UINT32_C(0x3f) /* of MXCSR: what has happened so far */

static uint32_t mxcsr(void) {
  uint32_t value;
  __asm__ volatile("stmxcsr %0" : "=m"(value));
  return value;
}

static uint64_t float_mode(void) { return mxcsr() & ~FLOAT_FLAGS; }

static void set_float_mode(uint64_t mode) {
  uint32_t value = (uint32_t)mode | (mxcsr() & FLOAT_FLAGS);
  __asm__ volatile("ldmxcsr %0" ::"m"(value) : "memory");
}
#else
#define DEFAULT_FLOAT_MODE 0
static uint64_t float_mode(void) { return 0; }
static void set_float_mode(uint64_t mode) { (void)mode; }
#endif

/* Reading is cheaper than writing. */
static void take_float_mode(uint64_t mode) {
  if (float_mode() != mode) set_float_mode(mode);
}
