/* Whether this CPU has the instructions that the kernels use. If some are beyond Armv8.0, the generated file has defined
 *
 *   NEEDED_HWCAP, NEEDED_HWCAP2   the bits by which Linux reports them
 *   NEEDED_NAMES                  their names in /proc/cpuinfo, with a blank between two
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
static bool cpu_suffices(void) { return true; }
#else
#define NEEDED_WORDS " (" NEEDED_NAMES " in /proc/cpuinfo)"
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

static bool has_names(const char *line, const char *end) {
  for (const char *name = NEEDED_NAMES; *name;) {
    size_t length = 0;
    while (name[length] > ' ') ++length;
    if (!has_word(line, end, name, length)) return false;
    name += length + (name[length] == ' ');
  }
  return true;
}

static bool has_bits(uint64_t hwcap, uint64_t hwcap2) { return !(NEEDED_HWCAP & ~hwcap) && !(NEEDED_HWCAP2 & ~hwcap2); }

static bool auxv_suffices(void) {
  uint64_t pairs[MOST_VALUES][2], hwcap = 0, hwcap2 = 0;
  size_t count = read_file("/proc/self/auxv", (char *)pairs, sizeof pairs) / sizeof *pairs;
  for (size_t i = 0; i < count; ++i) {
    if (pairs[i][0] == HWCAP) hwcap = pairs[i][1];
    if (pairs[i][0] == HWCAP2) hwcap2 = pairs[i][1];
  }
  return has_bits(hwcap, hwcap2);
}

/* By the first line of features, since Linux writes the same for every CPU. */
static bool files_suffice(void) {
  static const char key[] = "Features";
  char text[2048];
  const char *end = text + read_file("/proc/cpuinfo", text, sizeof text), *behind;
  for (const char *line = text; line < end; line = behind + 1) {
    for (behind = line; behind < end && *behind != '\n';) ++behind;
    if (has_word(line, behind, key, sizeof key - 1)) return has_names(line, behind);
  }
  return auxv_suffices();
}

static bool cpu_suffices(void) {
  unsigned long (*value)(unsigned long) = process_value;
  __asm__("" : "+r"(value)); /* a direct call would be bound when it is first made, which not every loader does */
  if (value && value(HWCAP)) return has_bits(value(HWCAP), value(HWCAP2));
  return (dynamic_section || process_start) ? files_suffice() : true;
}
#endif
