/* What compiled code expects of a C library: with this linked in, a library needs none, on Linux and Android alike.
 *
 * Loops over 16 bytes become vector stores; the compiler must not turn them back into the calls they implement.
 */
#include <float.h>
#include <stddef.h>
#include <stdint.h>

#define HIDDEN __attribute__((visibility("hidden")))
typedef uint64_t Word __attribute__((vector_size(16), aligned(1), may_alias));

HIDDEN void *memset(void *to, int value, size_t size) {
  unsigned char *target = to;
  uint64_t pattern = UINT64_C(0x0101010101010101) * (unsigned char)value;
  Word word = {pattern, pattern};
  size_t done = 0;
  for (; done + 4 * sizeof(Word) <= size; done += 4 * sizeof(Word)) {
    Word *words = (Word *)(target + done);
    words[0] = words[1] = words[2] = words[3] = word;
  }
  for (; done + sizeof(Word) <= size; done += sizeof(Word)) *(Word *)(target + done) = word;
  for (; done < size; ++done) target[done] = (unsigned char)value;
  return to;
}

HIDDEN void *memcpy(void *restrict to, const void *restrict from, size_t size) {
  unsigned char *target = to;
  const unsigned char *source = from;
  size_t done = 0;
  for (; done + 4 * sizeof(Word) <= size; done += 4 * sizeof(Word)) {
    Word *out = (Word *)(target + done);
    const Word *in = (const Word *)(source + done);
    out[0] = in[0], out[1] = in[1], out[2] = in[2], out[3] = in[3];
  }
  for (; done + sizeof(Word) <= size; done += sizeof(Word)) *(Word *)(target + done) = *(const Word *)(source + done);
  for (; done < size; ++done) target[done] = source[done];
  return to;
}

/* What is left of x after whole multiples of y, with x's sign. Every number below is a multiple of the last place of y and has less than 53
 * bits, so that the differences are exact.
 */
HIDDEN float fmodf(float x, float y) {
  double left = x < 0 ? -(double)x : (double)x;
  const double divisor = y < 0 ? -(double)y : (double)y;
  double part = divisor;
  if (!(divisor > 0) || !(left <= FLT_MAX)) return (x * y) / (x * y);
  if (divisor > FLT_MAX) return x;
  while (part <= left / 2) part *= 2;
  for (; part >= divisor; part /= 2)
    if (left >= part) left -= part;
  return __builtin_copysignf((float)left, x);
}
