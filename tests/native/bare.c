/* A network without an operating system and without a C library: one thread, static memory, and the debugger's console (Arm's semihosting
 * 2.0), by which QEMU and boards under a debugger read the input and write the answer. */
#include "mobilenet_v1_0.25_128_float32_t4.h"

#define NET(name) mobilenet_v1_0_25_128_##name
enum { OPEN = 1, WRITE = 4, READ = 6, EXIT = 0x18, BINARY_READ = 1 };

static _Alignas(64) unsigned char input[1 << 20], output[1 << 14], workspace[1 << 22];
__attribute__((used)) static _Alignas(16) unsigned char stack[1 << 16];
static tvmmobile_instance instance;

static long host(long operation, const void *block) {
  register long x0 __asm__("x0") = operation;
  register const void *x1 __asm__("x1") = block;
  __asm__ volatile("hlt 0xf000" : "+r"(x0) : "r"(x1) : "memory");
  return x0;
}

static void leave(int code) {
  const long block[] = {0x20026 /* the program ended by itself */, code};
  host(EXIT, block);
  for (;;) {}
}

static void say(const char *text) { host(WRITE, text); }

static size_t best_of(const float *scores, size_t count) {
  size_t best = 0;
  for (size_t i = 1; i < count; ++i)
    if (scores[i] > scores[best]) best = i;
  return best;
}

__attribute__((used)) static void begin(void) {
  const tvmmobile_description *net = NET(describe)();
  static const char name[] = "input.f32";
  const void *const inputs[] = {input};
  void *const outputs[] = {output};
  size_t in = net->inputs->bytes, out = net->outputs->bytes;
  if (in > sizeof input || out > sizeof output || net->workspace_bytes > sizeof workspace) leave(2);
  const long open[] = {(long)name, BINARY_READ, sizeof name - 1};
  const long read[] = {host(OPEN, open), (long)input, (long)in};
  if (host(READ, read)) leave(3); /* what is left to read */
  int code = NET(init)(TVMMOBILE_INTERFACE, &instance, 0);
  if (!code) code = NET(run)(&instance, inputs, outputs, workspace, sizeof workspace, 0);
  if (code) say(NET(message)(code)), leave(4);
  size_t best = best_of((const float *)output, out / sizeof(float));
  char text[] = "class ....: bits ........\n";
  uint32_t bits;
  __builtin_memcpy(&bits, output + best * sizeof(float), sizeof bits);
  for (int i = 0; i < 4; ++i, best /= 10) text[9 - i] = (char)('0' + best % 10);
  for (int i = 0; i < 8; ++i, bits >>= 4) text[24 - i] = "0123456789abcdef"[bits & 15];
  say(text);
  leave(0);
}

#ifdef PRIVILEGED /* on a machine of its own, which starts with floating point switched off */
#define SWITCH_ON "  mov x0, 0x300000\n  msr cpacr_el1, x0\n  isb\n"
#else
#define SWITCH_ON
#endif
__asm__(".globl _start\n_start:\n" SWITCH_ON "  adrp x0, stack\n  add x0, x0, :lo12:stack\n  add sp, x0, 0x10000\n  b begin\n");
