/* Which of several sets of kernels an instance takes: the one that the options name, or else the one that suits the core which the threads run
 * on, or else, where that core is not known, by the CPU's instructions. Never a set whose instructions the CPU lacks, unless the options say not
 * to compare. Behind the tables of runtime.c, the generated file has defined
 *
 *   kernel_sets     all of them
 *   by_features     their places, those first that have most to gain from a new core
 *   cores           by their main ID register, from small ones to large ones
 */
/* A core's place among `cores`, counted from 1; 0 if it is none of them. */
static uint32_t row_of(uint32_t core) {
  for (uint32_t i = 0; i < sizeof cores / sizeof *cores; ++i)
    if (cores[i].core == core) return i + 1;
  return 0;
}

/* Finds the set for a core, 0 if it is not known, with these features; returns false if it has the instructions of none. */
static bool find_set(uint32_t core, Features cpu, Shown *found) {
  uint32_t place = row_of(core);
  for (uint32_t i = 0; place && i < SETS; ++i) {
    const Core *row = &cores[place - 1];
    *found = (Shown){row->order[i], i < row->tuned ? BY_CORE : BY_KIN, 0};
    if (fits(kernel_sets[found->set].needs, cpu)) return true;
  }
  for (uint32_t i = 0; i < 2 * SETS; ++i) {
    *found = (Shown){by_features[i % SETS], BY_FEATURES, 0};
    const KernelSet *set = &kernel_sets[found->set];
    if (fits(set->needs, cpu) && (i >= SETS || fits(set->typical, cpu))) return true;
  }
  return false;
}

#if defined(__linux__) && defined(__aarch64__)
#define READS_ID (UINT64_C(1) << 11) /* of AT_HWCAP: cpuid */
#define MOST_READ 16 /* main ID registers, where no capacities tell which cores are large */

static uint32_t core_of(uint64_t midr) { return (uint32_t)((midr >> 24 & 0xff) << 12 | (midr >> 4 & 0xfff)); }

/* The core of a CPU by what Linux shows, such as 0x00000000410fd083; 0 if it shows nothing. */
static uint32_t shown_core(uint32_t cpu) {
  char text[24];
  size_t read = read_of(cpu, MAIN_ID, text, sizeof text);
  uint64_t midr = 0;
  for (size_t i = 2; i < read && text[i] > ' '; ++i) midr = midr << 4 | (uint64_t)(text[i] <= '9' ? text[i] - '0' : (text[i] | ' ') - 'a' + 10);
  return core_of(midr);
}

/* The largest core of these CPUs; 0 if Linux shows none. */
static uint32_t largest_core(uint64_t cpus) {
  uint32_t best = 0, most = 0, reads = 0;
  for (uint32_t cpu = 0; cpu < MOST_CPUS; ++cpu) {
    uint32_t capacity = cpus >> cpu & 1 ? number_of(cpu, CAPACITY) : 0;
    if (!(cpus >> cpu & 1) || (best && capacity && capacity <= most) || (!capacity && reads++ >= MOST_READ)) continue;
    uint32_t core = shown_core(cpu);
    if (core && (!best || capacity > most || row_of(core) > row_of(best))) best = core, most = capacity;
  }
  return best;
}

/* The CPUs among `cpus` that the threads are pinned to, or those that they may run on. */
static uint64_t cpus_of(uint64_t cpus, uint32_t threads) {
  uint64_t allowed[MOST_ALLOWED], found = 0;
  if (!cpus) return allowed_cpus(allowed), allowed[0];
  for (uint32_t cpu = 0; cpu < MOST_CPUS && threads; ++cpu)
    if (cpus >> cpu & 1) found |= UINT64_C(1) << cpu, --threads;
  return found;
}

/* The core that the threads run on; 0 if it is not known. Linux shows the register of every CPU, or, where it says so, emulates an instruction
 * that reads the one of this thread's CPU. */
static uint32_t current_core(Features cpu, uint64_t cpus, uint32_t threads) {
  uint32_t core = largest_core(cpus_of(cpus, threads));
  uint64_t midr = 0;
  if (!core && cpu.hwcap & READS_ID) __asm__("mrs %0, midr_el1" : "=r"(midr));
  return core ? core : core_of(midr);
}
#else
#define current_core(cpu, cpus, threads) ((void)(cpus), (void)(threads), 0)
#endif

/* Chooses a set: the one `wanted`, counted from 1, or the CPU's if that is 0. Returns false if the CPU lacks its instructions, unless it is to
 * be `trusted`, or no system says what it has and the options name the set. */
static bool choose(uint32_t wanted, uint64_t cpus, uint32_t threads, bool trusted, Shown *found) {
  bool asked;
  Features cpu = cpu_features(&asked);
  if (wanted) {
    *found = (Shown){wanted - 1, BY_OPTION, 0};
    return trusted || !asked || fits(kernel_sets[wanted - 1].needs, cpu);
  }
  if (find_set(asked ? current_core(cpu, cpus, threads) : 0, cpu, found)) return true;
  *found = (Shown){by_features[SETS - 1], BY_TRUST, 0};
  return trusted;
}
