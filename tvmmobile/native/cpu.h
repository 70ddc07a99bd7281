/* What this CPU has of what the kernels use. If some of that is beyond Armv8.0, the generated file has defined
 *
 *   NEEDED_HWCAP, NEEDED_HWCAP2   the bits by which Linux reports it
 *   NEEDED_NAMES                  its names in /proc/cpuinfo in the order of these bits, with a blank between two
 *   NEEDED_SHOWN                  if there are several sets of kernels, what each of them needs, for people
 *
 * Linux is asked because it reports what every core has, whichever one runs this. The ID registers describe one core, and reading them is
 * itself an illegal instruction before Linux 4.11.
 *
 * getauxval may be missing: a library needs no C library, Android's loader hides libc from it, and a static program may not contain it. Apps
 * on Android can read /proc/cpuinfo, but not /proc/self/auxv; QEMU 7.2 passes the host's cpuinfo on, but has an auxv of its own.
 *
 * Without an operating system there is nobody to ask, and a system call would end the program. */
#if !defined(NEEDED_HWCAP) || !defined(__linux__)
#define NEEDED_WORDS
static Features cpu_features(bool *asked) { return *asked = false, (Features){0, 0}; }
#else
#ifdef NEEDED_SHOWN
#define NEEDED_WORDS " (" NEEDED_SHOWN ", as /proc/cpuinfo names them)"
#else
#define NEEDED_WORDS " (" NEEDED_NAMES " in /proc/cpuinfo)"
#endif
enum { HWCAP = 16, HWCAP2 = 26, MOST_VALUES = 64 }; /* AT_HWCAP, AT_HWCAP2 */

/* From the process, if its loader shows it; null if not. */
extern unsigned long process_value(unsigned long) __asm__("getauxval") __attribute__((weak));
/* What a loader reads, and where static programs for Linux begin: where both are null, there is no operating system. */
extern const char dynamic_section[] __asm__("_DYNAMIC") __attribute__((weak, visibility("hidden")));
extern int process_start(void) __asm__("__libc_start_main") __attribute__((weak));

/* Whether a line, up to `end`, contains the word of that length. */
static bool has_word(const char *line, const char *end, const char *word, size_t length) {
  while (line < end) {
    size_t same = 0;
    while (line < end && *line <= ' ') ++line;
    while (line < end && same < length && *line == word[same]) ++line, ++same;
    if (same == length && (line == end || *line <= ' ')) return true;
    while (line < end && *line > ' ') ++line;
  }
  return false;
}

/* Those of the names that a line, up to `end`, contains; the others' bits are 0. */
static Features named_features(const char *line, const char *end) {
  Features found = {NEEDED_HWCAP, NEEDED_HWCAP2};
  const char *name = NEEDED_NAMES;
  for (uint32_t bit = 0; *name; ++bit) {
    uint64_t *word = bit < 64 ? &found.hwcap : &found.hwcap2, mask = UINT64_C(1) << bit % 64;
    if (!(*word & mask)) continue;
    size_t length = 0;
    while (name[length] > ' ') ++length;
    if (!has_word(line, end, name, length)) *word &= ~mask;
    name += length + (name[length] == ' ');
  }
  return found;
}

static Features auxv_features(void) {
  uint64_t pairs[MOST_VALUES][2];
  Features found = {0, 0};
  size_t count = read_file("/proc/self/auxv", (char *)pairs, sizeof pairs) / sizeof *pairs;
  for (size_t i = 0; i < count; ++i) {
    if (pairs[i][0] == HWCAP) found.hwcap = pairs[i][1];
    if (pairs[i][0] == HWCAP2) found.hwcap2 = pairs[i][1];
  }
  return found;
}

/* By the first line of features, since Linux writes the same for every CPU. */
static Features filed_features(void) {
  static const char key[] = "Features";
  char text[2048];
  const char *end = text + read_file("/proc/cpuinfo", text, sizeof text), *behind;
  for (const char *line = text; line < end; line = behind + 1) {
    for (behind = line; behind < end && *behind != '\n';) ++behind;
    if (has_word(line, behind, key, sizeof key - 1)) return named_features(line, behind);
  }
  return auxv_features();
}

/* Sets whether there was a system to ask; without one, features are not known. */
static Features cpu_features(bool *asked) {
  unsigned long (*value)(unsigned long) = process_value;
  __asm__("" : "+r"(value)); /* a direct call would be bound when it is first made, which not every loader does */
  *asked = true;
  if (value && value(HWCAP)) return (Features){value(HWCAP), value(HWCAP2)};
  if (dynamic_section || process_start) return filed_features();
  return *asked = false, (Features){0, 0};
}
#endif

#ifndef NEEDED_HWCAP
#define NEEDED_HWCAP 0
#define NEEDED_HWCAP2 0
#endif

static bool fits(Features needs, Features cpu) { return !(needs.hwcap & ~cpu.hwcap) && !(needs.hwcap2 & ~cpu.hwcap2); }
