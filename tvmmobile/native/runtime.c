/* Runs a compiled network: checks, threads, and the loop over its steps. The generated file that includes this one has defined
 *
 *   MODEL(name)         the public name of a function
 *   description         what MODEL(describe) returns
 *   steps, STEPS        what to run, in order, and how many
 *   kernels             the names that steps refer to
 *   NEEDED_…            what the kernels need of the CPU, see cpu.h
 *   SETS                if there are several sets of kernels for different cores: how many; kernel_sets then holds `steps`, `kernels` and the
 *                       rest of each, and choose.h takes one
 *   IMAGE_STEPS         if it takes images: how many of those, at the beginning, make the network's input; image.c follows then
 *   EXPANDED_BYTES      if init makes weights: the size of the largest set's; `expansions` lists what it makes, see expand.h
 *   STATE_BYTES         if it keeps tensors between calls: of all of these, which `states` lists
 *   typedefs Frame, Step, State and KernelSet below, which it uses: it includes this file twice, the first time for the types alone.
 *
 * Nothing here is written but what the caller provides, the instance, its state, the workspace and the outputs, and what expand.h maps.
 */
#ifndef RUNTIME_TYPES
#define RUNTIME_TYPES

/* What a run works on. */
typedef struct Frame {
  const void *const *inputs;
  void *const *outputs;
  unsigned char *workspace;
  const struct Scaling *scaling; /* of an image, which the first IMAGE_STEPS make the input of; null: the caller gave it */
#ifdef EXPANDED_BYTES
  const unsigned char *expanded; /* weights that init made */
#endif
#ifdef STATE_BYTES
  const unsigned char *before; /* what the call before left */
  unsigned char *after;        /* what this one leaves */
#endif
} Frame;

/* A part of a kernel with its buffers: iterations `begin` to `end`, by the thread that is number `lane`. */
typedef void (*Body)(const Frame *frame, uint32_t lane, int32_t begin, int32_t end);
typedef struct Step {
  Body body;
  int32_t extent;   /* iterations that threads share; 0: one thread does it */
  uint8_t by_last;  /* that one is the last, which has the least to do of the kernel's loops */
  uint8_t finishes; /* what follows reads what was written up to here */
  uint16_t kernel;  /* that it is a part of: the next step of another one begins the next kernel */
} Step;

#ifdef EXPANDED_BYTES
/* Weights that init makes of (taps, depth, channels) numbers; see `Expansion` in schedules/emit/expansion.py. */
typedef struct Expansion {
  size_t place;         /* in the instance's memory */
  size_t stored;        /* in `weights` */
  size_t scales;        /* 1 more than their place there: the numbers are in int8; 0: there are none, and the numbers are in half precision */
  const float *rows;    /* values x 3 */
  const float *factors; /* values x values */
  uint32_t values;      /* of a transformed window's side; 0: the taps are not transformed */
  uint32_t taps, depth, channels, width, k_block, parts;
} Expansion;
#endif

/* A tensor that is kept between calls. */
typedef struct State {
  size_t place, bytes;
  uint8_t zero; /* each byte at the beginning */
} State;

/* Of a CPU, by the bits with which Linux reports them: AT_HWCAP and AT_HWCAP2. */
typedef struct Features {
  uint64_t hwcap, hwcap2;
} Features;

#ifdef SETS
/* One of several sets of kernels. */
typedef struct KernelSet {
  const Step *steps;
  const char *const *kernels;
  uint32_t count;   /* of steps */
  Features needs;   /* a CPU without these has other instructions than the kernels */
  Features typical; /* of its core; it may be taken without them */
#ifdef EXPANDED_BYTES
  const Expansion *expansions;
  uint32_t expansion_count;
#endif
} KernelSet;

/* A core, as implementer << 12 | part of its main ID register, and the sets that suit it, best first. */
typedef struct Core {
  uint32_t core;
  uint32_t tuned; /* so many of them at the beginning were tuned for this core */
  uint8_t order[SETS];
} Core;

enum { BY_OPTION, BY_CORE, BY_KIN, BY_FEATURES, BY_TRUST };
#define REASONS \
  "the options name it", "it was tuned for this core", "it was tuned for a similar core", "the CPU has the instructions of its core", \
      "it needs the least, and the options say not to compare"
#else
#define REASONS "there is no other"
#endif

#else

#include <stdatomic.h>
#include <stdbool.h>

#include "float_mode.h"

#define MAGIC UINT64_C(0x74766d6d6f62696c)
#define MOST_THREADS 32
#define MOST_CPUS 64
#define MOST_ALLOWED 16 /* words of 64 CPUs, of which a thread may use some */
#define MOST_DIGITS 9
#define MOST_SPEED 1024 /* of a thread; so that products with it fit */
#define DEFAULT_SPINS 20000
#define LINE 64
#define FLAGS (TVMMOBILE_BIG_CORES | TVMMOBILE_ANY_CPU | TVMMOBILE_FASTEST_THREADS)
#define FLAG_BITS 24 /* below the number of a set */

#if defined(__linux__)
#if defined(__aarch64__)
enum { SYS_openat = 56, SYS_close = 57, SYS_read = 63, SYS_futex = 98, SYS_sched_setaffinity = 122, SYS_sched_getaffinity = 123, SYS_rt_sigprocmask = 135 };
static long system_call(long number, long a, long b, long c, long d) {
  register long x8 __asm__("x8") = number;
  register long x0 __asm__("x0") = a;
  register long x1 __asm__("x1") = b;
  register long x2 __asm__("x2") = c;
  register long x3 __asm__("x3") = d;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3) : "memory");
  return x0;
}
#else
#include <sys/syscall.h>
extern long syscall(long number, ...);
#define system_call syscall
#endif
#endif

#if defined(__linux__)
/* Reads the beginning of a file; returns how many bytes, 0 if it cannot be read. */
static size_t read_file(const char *path, char *text, size_t size) {
  long file = system_call(SYS_openat, -100L /* AT_FDCWD */, (long)path, 02000000L /* O_CLOEXEC */, 0L);
  if (file < 0) return 0;
  long read = system_call(SYS_read, file, (long)text, (long)size, 0L);
  system_call(SYS_close, file, 0L, 0L, 0L);
  return read > 0 ? (size_t)read : 0;
}
#endif

#include "cpu.h"

/* From the process, if its loader shows them; null if not. */
extern int process_create(unsigned long *, const void *, void *(*)(void *), void *) __asm__("pthread_create") __attribute__((weak));
extern int process_join(unsigned long, void **) __asm__("pthread_join") __attribute__((weak));

/* A number that threads wait for. */
typedef struct Gate {
  _Alignas(LINE) atomic_uint value;
  atomic_uint sleepers;
} Gate;

typedef void (*Observer)(void *context, const char *kernel, uint32_t done);

typedef struct Instance {
#ifdef SETS
  const KernelSet *set;
#endif
  uint64_t magic;
  void *self; /* where it was initialised */
  tvmmobile_parallel parallel;
  void *pool;
  tvmmobile_join join;
  uint64_t cpus;
  uint32_t speeds[MOST_THREADS]; /* of each thread's CPU, from 1 to MOST_SPEED; zeros if they are not known */
  uint32_t threads, spins;
  uint32_t started;
  Observer observer;
  void *context;
  const Frame *frame; /* of the run that the threads take part in */
  uint64_t mode;      /* of its caller: see float_mode.h */
  atomic_uint starting; /* numbers the threads as they start */
  atomic_bool taken;    /* the threads belong to a run */
  Gate begun;           /* run number × LANES + its threads; 0 threads: end */
  atomic_uint arrived;  /* at the barrier */
  Gate passed;          /* barriers */
  unsigned long handles[MOST_THREADS];
#ifdef EXPANDED_BYTES
  unsigned char *expanded; /* weights that init made */
#endif
#ifdef STATE_BYTES
  unsigned char *state; /* twice STATE_BYTES: a run reads one half and writes the other */
  bool second;          /* is read by the next run */
#endif
} Instance;

/* At the beginning of its memory: what programs may read. */
typedef struct Shown {
  uint64_t set, reason, threads;
} Shown;

_Static_assert(sizeof(Shown) + LINE + sizeof(Instance) <= sizeof(tvmmobile_instance), "raise tvmmobile_instance");
#define LANES (2 * MOST_THREADS)

static Instance *instance_in(tvmmobile_instance *memory) {
  return (Instance *)(((uintptr_t)memory + sizeof(Shown) + LINE - 1) / LINE * LINE);
}

#ifdef SETS
static const Step *steps_of(const Instance *self) { return self->set->steps; }
static uint32_t step_count(const Instance *self) { return self->set->count; }
static const char *name_of(const Instance *self, const Step *step) { return self->set->kernels[step->kernel]; }
static size_t workspace_of(const Instance *self) { return description.sets[self->set - kernel_sets].workspace_bytes; }
#define expansions_of(self) ((self)->set->expansions)
#define expansion_count(self) ((self)->set->expansion_count)
#else
#define steps_of(self) ((void)(self), steps)
#define step_count(self) ((void)(self), STEPS)
#define name_of(self, step) ((void)(self), kernels[(step)->kernel])
#define workspace_of(self) ((void)(self), description.workspace_bytes)
#define expansions_of(self) ((void)(self), expansions)
#define expansion_count(self) ((void)(self), sizeof expansions / sizeof *expansions)
#endif

static void relax(void) {
#if defined(__aarch64__)
  __asm__ volatile("yield");
#elif defined(__x86_64__)
  __asm__ volatile("pause");
#endif
}

/* Returns when the gate has another value than `old`. */
static unsigned wait_for(Gate *gate, unsigned old, uint32_t spins) {
  unsigned value;
  for (;;) {
    for (uint32_t spin = 0; spin < spins || spins == TVMMOBILE_ALWAYS_SPIN; ++spin) {
      value = atomic_load(&gate->value);
      if (value != old) return value;
      relax();
    }
#if defined(__linux__)
    atomic_fetch_add(&gate->sleepers, 1);
    system_call(SYS_futex, (long)&gate->value, 128 /* FUTEX_WAIT_PRIVATE */, (long)old, 0L);
    atomic_fetch_sub(&gate->sleepers, 1);
#endif
  }
}

static void open_gate(Gate *gate, unsigned value) {
  atomic_store(&gate->value, value);
#if defined(__linux__)
  if (atomic_load(&gate->sleepers)) system_call(SYS_futex, (long)&gate->value, 129 /* FUTEX_WAKE_PRIVATE */, 0x7fffffffL, 0L);
#endif
}

/* All `lanes` threads have come this far; a thread that need not know goes on. */
static void barrier(Instance *self, uint32_t lanes, bool waits) {
  unsigned before = atomic_load(&self->passed.value);
  if (atomic_fetch_add(&self->arrived, 1) + 1 == lanes) {
    atomic_store(&self->arrived, 0);
    open_gate(&self->passed, before + 1);
  } else if (waits) {
    wait_for(&self->passed, before, self->spins);
  }
}

#ifdef IMAGE_STEPS
static uint32_t first_step(const Frame *frame) { return frame->scaling ? 0 : IMAGE_STEPS; }
static const char *image_message(int code);
#define OTHER_MESSAGE image_message(code)
#else
#define first_step(frame) ((void)(frame), 0)
#define OTHER_MESSAGE "unknown error code"
#endif

#ifdef STATE_BYTES
#define STATE_WORDS(words) words
#else
#define STATE_WORDS(words)
#endif

/* Among how many threads iterations are shared, and by which speeds; those are null if they are equal or not known. */
typedef struct Sharing {
  uint32_t lanes;
  const uint32_t *speeds;
  uint64_t unit; /* one over their sum, times 2^32 */
} Sharing;

static Sharing sharing_of(const Instance *self, uint32_t lanes) {
  uint64_t total = 0;
  bool differ = false;
  for (uint32_t i = 0; i < lanes; ++i) {
    total += self->speeds[i];
    differ |= self->speeds[i] != self->speeds[0];
  }
  return differ ? (Sharing){lanes, self->speeds, (UINT64_C(1) << 32) / total} : (Sharing){lanes, 0, 0};
}

/* What a thread does of a step, so that the last one to finish does so as early as possible: iterations that are left when each has what its
 * speed gives it go, one by one, to the thread that finishes first with one more. */
static void do_share_by_speed(const Step *step, const Frame *frame, uint32_t lane, const Sharing *sharing) {
  const uint32_t *speeds = sharing->speeds;
  uint64_t extent = (uint64_t)step->extent, left = extent, counts[MOST_THREADS];
  for (uint32_t i = 0; i < sharing->lanes; ++i) left -= counts[i] = extent * speeds[i] * sharing->unit >> 32;
  for (; left; --left) {
    uint32_t soonest = 0;
    for (uint32_t i = 1; i < sharing->lanes; ++i)
      if ((counts[i] + 1) * speeds[soonest] < (counts[soonest] + 1) * speeds[i]) soonest = i;
    ++counts[soonest];
  }
  int32_t begin = 0;
  for (uint32_t i = 0; i < lane; ++i) begin += (int32_t)counts[i];
  if (counts[lane]) step->body(frame, lane, begin, begin + (int32_t)counts[lane]);
}

/* What a thread does of a step. */
static void do_share(const Step *step, const Frame *frame, uint32_t lane, const Sharing *sharing) {
  int32_t lanes = (int32_t)sharing->lanes;
  if (!step->extent) {
    if (lane == (step->by_last ? sharing->lanes - 1 : 0)) step->body(frame, lane, 0, 0);
  } else if (sharing->speeds) {
    do_share_by_speed(step, frame, lane, sharing);
  } else {
    int32_t share = (step->extent + lanes - 1) / lanes, begin = (int32_t)lane * share;
    int32_t end = begin + share < step->extent ? begin + share : step->extent;
    if (begin < end) step->body(frame, lane, begin, end);
  }
}

static bool begins(const Instance *self, const Frame *frame, uint32_t i) {
  const Step *all = steps_of(self);
  return i == first_step(frame) || all[i].kernel != all[i - 1].kernel;
}

static bool ends(const Instance *self, uint32_t i) {
  const Step *all = steps_of(self);
  return i + 1 == step_count(self) || all[i].kernel != all[i + 1].kernel;
}

static void tell(const Instance *self, uint32_t i, uint32_t done) { self->observer(self->context, name_of(self, &steps_of(self)[i]), done); }

/* One of `lanes` threads that run all steps side by side. */
static void run_lane(Instance *self, uint32_t lane, uint32_t lanes) {
  const Frame *frame = self->frame;
  const Step *all = steps_of(self);
  const Sharing sharing = sharing_of(self, lanes);
  bool observed = self->observer != 0;
  for (uint32_t i = first_step(frame); i < step_count(self); ++i) {
    if (observed && begins(self, frame, i)) {
      if (lane == 0) tell(self, i, 0);
      barrier(self, lanes, true); /* none of it is done before */
    }
    do_share(&all[i], frame, lane, &sharing);
    if (all[i].finishes) barrier(self, lanes, lane == 0 || i + 1 < step_count(self));
    if (observed && lane == 0 && ends(self, i)) tell(self, i, 1);
  }
}

static void run_alone(const Instance *self, const Frame *frame) {
  const Step *all = steps_of(self);
  bool observed = self->observer != 0;
  for (uint32_t i = first_step(frame); i < step_count(self); ++i) {
    if (observed && begins(self, frame, i)) tell(self, i, 0);
    all[i].body(frame, 0, 0, all[i].extent);
    if (observed && ends(self, i)) tell(self, i, 1);
  }
}

/* A step for the caller's threads. */
typedef struct Shared {
  const Step *step;
  const Frame *frame;
  Sharing sharing;
  uint64_t mode;
} Shared;

static void do_shared(void *data, uint32_t lane) {
  const Shared *shared = data;
  uint64_t own = float_mode();
  take_float_mode(shared->mode);
  do_share(shared->step, shared->frame, lane, &shared->sharing);
  take_float_mode(own);
}

static void run_in_pool(Instance *self, const Frame *frame, uint32_t lanes) {
  const Step *all = steps_of(self);
  uint64_t mode = float_mode();
  for (uint32_t i = first_step(frame); i < step_count(self); ++i) {
    Shared shared = {&all[i], frame, {lanes, 0, 0}, mode};
    if (self->observer && begins(self, frame, i)) tell(self, i, 0);
    if (all[i].extent)
      self->parallel(self->pool, do_shared, &shared, lanes);
    else
      all[i].body(frame, 0, 0, 0);
    if (self->observer && ends(self, i)) tell(self, i, 1);
  }
}

static void pin(uint64_t cpus, uint32_t lane) {
#if defined(__linux__)
  for (uint32_t cpu = 0; cpu < MOST_CPUS; ++cpu) {
    if (!(cpus >> cpu & 1) || lane--) continue;
    uint64_t mask = UINT64_C(1) << cpu;
    system_call(SYS_sched_setaffinity, 0L, (long)sizeof mask, (long)&mask, 0L);
    return;
  }
#endif
}

/* Signals are for the program's own threads, other than what tells of a thread's own fault, and 32 to 34, with which C libraries reach each
 * thread and wait for its answer (setuid). Signal n is bit n - 1. */
static void block_signals(void) {
#if defined(__linux__)
  uint64_t faults = 1u << 3 | 1u << 4 | 1u << 6 | 1u << 7 | 1u << 10 | 1u << 30; /* SIGILL, TRAP, BUS, FPE, SEGV, SYS */
  uint64_t blocked = ~(faults | UINT64_C(7) << 31);
  system_call(SYS_rt_sigprocmask, 0L /* SIG_BLOCK */, (long)&blocked, 0L, (long)sizeof blocked);
#endif
}

static void *work(void *argument) {
  Instance *self = argument;
  uint32_t lane = atomic_fetch_add(&self->starting, 1) + 1;
  block_signals();
  if (self->cpus) pin(self->cpus, lane);
  for (unsigned seen = 0, now;; seen = now) {
    now = wait_for(&self->begun, seen, self->spins);
    if (now % LANES == 0) return 0;
    if (lane >= now % LANES) continue;
    take_float_mode(self->mode);
    run_lane(self, lane, now % LANES);
  }
}

#if defined(__linux__)
#define CAPACITY "/cpu_capacity"
#define FASTEST_CLOCK "/cpufreq/cpuinfo_max_freq"
#define MAIN_ID "/regs/identification/midr_el1"
#define MOST_NAME sizeof MAIN_ID

/* Reads the beginning of /sys/devices/system/cpu/cpuN followed by `name`; see read_file. */
static size_t read_of(uint32_t cpu, const char *name, char *text, size_t size) {
  static const char before[] = "/sys/devices/system/cpu/cpu";
  char path[sizeof before + MOST_NAME + 2];
  size_t length = 0;
  for (const char *from = before; *from; ++from) path[length++] = *from;
  if (cpu >= 10) path[length++] = (char)('0' + cpu / 10);
  path[length++] = (char)('0' + cpu % 10);
  for (const char *from = name; *from; ++from) path[length++] = *from;
  path[length] = 0;
  return read_file(path, text, size);
}

/* The number there, 0 if there is none. */
static uint32_t number_of(uint32_t cpu, const char *name) {
  char text[16];
  size_t read = read_of(cpu, name, text, sizeof text);
  uint32_t value = 0;
  for (size_t i = 0; i < read && i < MOST_DIGITS && text[i] >= '0' && text[i] <= '9'; ++i) value = 10 * value + (uint32_t)(text[i] - '0');
  return value;
}

/* Reads the speeds of the CPUs that the threads are pinned to, the caller's that of the first one; returns whether all are known. */
static bool read_speeds(Instance *self, const char *name) {
  uint32_t lane = 0;
  for (uint32_t cpu = 0; cpu < MOST_CPUS && lane < self->threads; ++cpu)
    if (self->cpus >> cpu & 1 && !(self->speeds[lane++] = number_of(cpu, name))) return false;
  return lane == self->threads;
}

static void find_speeds(Instance *self) {
  if (self->threads == 1 || !self->cpus || self->parallel) return;
  bool known = read_speeds(self, CAPACITY) || read_speeds(self, FASTEST_CLOCK);
  uint64_t fastest = 1;
  for (uint32_t i = 0; i < self->threads; ++i) fastest = self->speeds[i] > fastest ? self->speeds[i] : fastest;
  for (uint32_t i = 0; i < self->threads; ++i)
    self->speeds[i] = known ? (uint32_t)(((uint64_t)self->speeds[i] * MOST_SPEED + fastest - 1) / fastest) : 0;
}
#else
static void find_speeds(Instance *self) { (void)self; }
#endif

static uint32_t count_of(uint64_t cpus) {
  uint32_t count = 0;
  for (; cpus; cpus &= cpus - 1) ++count;
  return count;
}

#if defined(__linux__)
/* Reads which CPUs the calling thread may run on; none if that is not known. */
static void allowed_cpus(uint64_t allowed[MOST_ALLOWED]) {
  for (uint32_t i = 0; i < MOST_ALLOWED; ++i) allowed[i] = 0;
  system_call(SYS_sched_getaffinity, 0L, MOST_ALLOWED * (long)sizeof *allowed, (long)allowed, 0L);
}
#endif

/* The `count` CPUs among `cpus` of the largest capacity; 0 where the system does not say which those are. Of equal ones, those that the thread
 * may run on come first, if they are enough: a thread that is pinned to another leaves the CPUs that its program was given. */
static uint64_t big_cores(uint32_t count, uint64_t cpus) {
  uint64_t found = 0;
#if defined(__linux__)
  uint64_t allowed[MOST_ALLOWED];
  uint32_t ranks[MOST_CPUS];
  allowed_cpus(allowed);
  uint64_t first = count_of(allowed[0]) < count ? 0 : allowed[0];
  for (uint32_t cpu = 0; cpu < MOST_CPUS; ++cpu) {
    uint32_t capacity = cpus >> cpu & 1 ? number_of(cpu, CAPACITY) : 0;
    ranks[cpu] = capacity ? 2 * capacity + (first >> cpu & 1) : 0;
  }
  for (; count; --count) {
    uint32_t best = 0;
    for (uint32_t cpu = 1; cpu < MOST_CPUS; ++cpu)
      if (ranks[cpu] > ranks[best]) best = cpu;
    if (!ranks[best]) break;
    found |= UINT64_C(1) << best;
    ranks[best] = 0;
  }
#endif
  (void)count, (void)cpus;
  return found;
}

/* Among how many CPUs work may be shared evenly: of those that the thread may run on, the ones with more than half of the largest's capacity.
 * Where the system shows no capacities, all of them; 1 where it does not even show those. */
static uint32_t suitable_cpus(void) {
  uint32_t count = 0;
#if defined(__linux__)
  uint64_t allowed[MOST_ALLOWED];
  uint32_t capacities[MOST_CPUS], largest = 0;
  allowed_cpus(allowed);
  for (uint32_t cpu = 0; cpu < MOST_CPUS; ++cpu) {
    capacities[cpu] = allowed[0] >> cpu & 1 ? number_of(cpu, CAPACITY) : 0;
    largest = capacities[cpu] > largest ? capacities[cpu] : largest;
  }
  for (uint32_t cpu = 0; cpu < MOST_ALLOWED * MOST_CPUS; ++cpu)
    count += allowed[cpu / MOST_CPUS] >> cpu % MOST_CPUS & 1 && (!largest || cpu >= MOST_CPUS || 2 * capacities[cpu] > largest);
#endif
  return count ? count : 1;
}

static uint32_t less(uint32_t one, uint32_t other) { return one < other ? one : other; }

#ifdef SETS
#include "choose.h"
#endif

#ifdef EXPANDED_BYTES
#include "expand.h"
#endif

static bool ready(const tvmmobile_instance *memory, const Instance *self) {
  return self->magic == MAGIC && self->self == (const void *)memory;
}

static int stop(Instance *self, int code) {
  self->magic = 0;
  if (self->started) open_gate(&self->begun, (atomic_load(&self->begun.value) / LANES + 1) * LANES);
  for (uint32_t i = 0; i < self->started; ++i) self->join(self->handles[i], 0);
#ifdef EXPANDED_BYTES
  if (self->expanded) unmap(self->expanded, EXPANDED_BYTES);
#endif
  return code;
}

static int start(Instance *self, const tvmmobile_options *options) {
  tvmmobile_create create = options->create ? options->create : process_create;
  self->join = options->join ? options->join : process_join;
  if (!create || !self->join) return TVMMOBILE_NO_THREADS;
  for (; self->started + 1 < self->threads; ++self->started)
    if (create(&self->handles[self->started], 0, work, self)) return TVMMOBILE_NO_THREADS;
  return TVMMOBILE_OK;
}

PUBLIC const tvmmobile_description *MODEL(describe)(void) { return &description; }

/* The CPUs for that many threads; 0 if they are not pinned. Of more CPUs than the fastest number of threads, the largest. */
static uint64_t pinned_to(const tvmmobile_options *options, uint32_t flags, uint32_t threads) {
  uint64_t all = ~UINT64_C(0), cpus = options->cpus;
  if (cpus && (!(flags & TVMMOBILE_FASTEST_THREADS) || count_of(cpus) <= threads)) return cpus;
  uint64_t largest = cpus || flags & TVMMOBILE_BIG_CORES ? big_cores(threads, cpus ? cpus : all) : 0;
  return cpus && count_of(largest) < threads ? cpus : largest;
}

PUBLIC int MODEL(init)(uint32_t interface, tvmmobile_instance *memory, const tvmmobile_options *given) {
  static const tvmmobile_options defaults;
  const tvmmobile_options *options = given ? given : &defaults;
  uint32_t wanted = options->flags >> FLAG_BITS, flags = options->flags & ((1u << FLAG_BITS) - 1);
  if (interface != TVMMOBILE_INTERFACE || (flags & ~FLAGS) || options->reserved || wanted > description.set_count) return TVMMOBILE_VERSION;
  if (!memory) return TVMMOBILE_NULL;
  if ((uintptr_t)memory % sizeof(uint64_t)) return TVMMOBILE_ALIGNMENT;
  Instance *self = instance_in(memory);
  if (ready(memory, self)) return TVMMOBILE_IN_USE;
  bool fastest = flags & TVMMOBILE_FASTEST_THREADS;
  uint32_t most = less(description.threads, MOST_THREADS), threads = options->threads ? options->threads : fastest ? most : 1;
  if (threads > most) return TVMMOBILE_THREADS;
  if (fastest) threads = less(threads, options->cpus ? count_of(options->cpus) : suitable_cpus());
  uint64_t cpus = pinned_to(options, flags, threads);
  Shown shown = {0, 0, 0};
#ifdef SETS
  if (!choose(wanted, cpus, threads, flags & TVMMOBILE_ANY_CPU, &shown)) return TVMMOBILE_CPU;
#else
  bool asked;
  if (!(flags & TVMMOBILE_ANY_CPU) && !fits((Features){NEEDED_HWCAP, NEEDED_HWCAP2}, cpu_features(&asked)) && asked) return TVMMOBILE_CPU;
#endif
  if (fastest && description.fastest_threads && threads > description.fastest_threads[shown.set]) {
    threads = description.fastest_threads[shown.set];
    cpus = pinned_to(options, flags, threads);
  }
  for (uint32_t i = 0; i < sizeof memory->state / sizeof *memory->state; ++i) memory->state[i] = 0;
  memory->state[0] = shown.set;
  memory->state[1] = shown.reason;
  memory->state[2] = threads;
#ifdef SETS
  self->set = &kernel_sets[shown.set];
#endif
  self->threads = threads;
  self->spins = options->spins ? options->spins : DEFAULT_SPINS;
  self->parallel = options->parallel;
  self->pool = options->pool;
  self->cpus = cpus;
  find_speeds(self);
  self->self = memory;
#ifdef EXPANDED_BYTES
  if (!make_weights(self)) return TVMMOBILE_MEMORY;
#endif
  int code = threads > 1 && !self->parallel ? start(self, options) : TVMMOBILE_OK;
  if (code) return stop(self, code);
  self->magic = MAGIC;
  return TVMMOBILE_OK;
}

static int check_pointers(const void *const *pointers, uint32_t count) {
  if (!pointers) return TVMMOBILE_NULL;
  for (uint32_t i = 0; i < count; ++i) {
    if (!pointers[i]) return TVMMOBILE_NULL;
    if ((uintptr_t)pointers[i] % LINE) return TVMMOBILE_ALIGNMENT;
  }
  return TVMMOBILE_OK;
}

/* What a run writes to, with `needed` bytes of workspace. */
static int check(void *const *outputs, const void *workspace, size_t bytes, size_t needed) {
  int code = check_pointers((const void *const *)outputs, description.output_count);
  if (!code && needed) code = check_pointers(&workspace, 1);
  return code ? code : bytes < needed ? TVMMOBILE_WORKSPACE : TVMMOBILE_OK;
}

static int find(tvmmobile_instance *memory, Instance **self) {
  if (!memory) return TVMMOBILE_NULL;
  if ((uintptr_t)memory % sizeof(uint64_t)) return TVMMOBILE_ALIGNMENT;
  *self = instance_in(memory);
  return ready(memory, *self) ? TVMMOBILE_OK : TVMMOBILE_UNREADY;
}

static int perform(Instance *self, Frame *frame, uint32_t threads) {
#ifdef EXPANDED_BYTES
  frame->expanded = self->expanded;
#endif
  uint32_t lanes = threads ? threads : self->threads;
  if (lanes > self->threads) return TVMMOBILE_THREADS;
  if (lanes == 1) {
    run_alone(self, frame);
  } else if (self->parallel) {
    run_in_pool(self, frame, lanes);
  } else if (atomic_exchange(&self->taken, true)) {
    run_alone(self, frame); /* another run has the threads: the result is the same */
  } else {
    self->frame = frame;
    self->mode = float_mode();
    open_gate(&self->begun, (atomic_load(&self->begun.value) / LANES + 1) * LANES + lanes);
    run_lane(self, 0, lanes);
    atomic_store(&self->taken, false);
  }
  return TVMMOBILE_OK;
}

#ifdef STATE_BYTES
/* Shows a run what the one before left, and where to leave its own. */
static int take_state(const Instance *self, Frame *frame) {
  if (!self->state) return TVMMOBILE_UNREADY;
  frame->before = self->state + (self->second ? STATE_BYTES : 0);
  frame->after = self->state + (self->second ? 0 : STATE_BYTES);
  return TVMMOBILE_OK;
}

PUBLIC size_t MODEL(state_bytes)(void) { return 2 * (size_t)STATE_BYTES; }

PUBLIC int MODEL(reset)(tvmmobile_instance *memory, void *state, size_t bytes) {
  Instance *self;
  int code = find(memory, &self);
  if (!code) code = check_pointers((const void *const[]){state}, 1);
  if (code) return code;
  if (bytes < MODEL(state_bytes)()) return TVMMOBILE_WORKSPACE;
  self->state = state;
  self->second = false;
  for (const State *one = states; one < states + sizeof states / sizeof *states; ++one)
    for (size_t i = 0; i < one->bytes; ++i) self->state[one->place + i] = one->zero;
  return TVMMOBILE_OK;
}
#endif

PUBLIC int MODEL(run)(tvmmobile_instance *memory, const void *const *inputs, void *const *outputs, void *workspace, size_t bytes,
                      uint32_t threads) {
  Instance *self;
  int code = find(memory, &self);
  if (!code) code = check_pointers(inputs, description.input_count);
  if (!code) code = check(outputs, workspace, bytes, workspace_of(self));
  Frame frame = {.inputs = inputs, .outputs = outputs, .workspace = workspace};
#ifdef STATE_BYTES
  if (!code) code = take_state(self, &frame);
#endif
  if (!code) code = perform(self, &frame, threads);
#ifdef STATE_BYTES
  if (!code) self->second = !self->second;
#endif
  return code;
}

PUBLIC int MODEL(observe)(tvmmobile_instance *memory, Observer observer, void *context) {
  Instance *self;
  int code = find(memory, &self);
  if (code) return code;
  self->observer = observer;
  self->context = context;
  return TVMMOBILE_OK;
}

PUBLIC int MODEL(free)(tvmmobile_instance *memory) {
  Instance *self;
  int code = find(memory, &self);
  return code ? code : stop(self, TVMMOBILE_OK);
}

PUBLIC const char *MODEL(message)(int code) {
  switch (code) {
    case TVMMOBILE_OK: return "no error";
    case TVMMOBILE_VERSION: return "the program was compiled with the header of another interface version, or its options have unknown flags or name no set of its kernels";
    case TVMMOBILE_NULL: return "a pointer is null";
    case TVMMOBILE_ALIGNMENT: return "a buffer does not begin at a multiple of 64 bytes, or the instance of 8";
    case TVMMOBILE_WORKSPACE:
      return "the workspace is smaller than the description's workspace_bytes" STATE_WORDS(", or the state than state_bytes");
    case TVMMOBILE_UNREADY: return "the instance was not initialised, was freed, or was moved" STATE_WORDS(", or was not reset");
    case TVMMOBILE_IN_USE: return "the instance is initialised already: free it first";
    case TVMMOBILE_THREADS: return "more threads than the library was compiled for, or than init was asked for";
    case TVMMOBILE_NO_THREADS: return "threads cannot be started: give the options create and join, or parallel";
    case TVMMOBILE_CPU:
      return "the CPU lacks instructions that the kernels use, or the system does not report them" NEEDED_WORDS
             ": compile the library for this CPU's core";
#ifdef EXPANDED_BYTES
    case TVMMOBILE_MEMORY: return "there is no memory for the weights that init makes";
#endif
    default: return OTHER_MESSAGE;
  }
}

#endif
