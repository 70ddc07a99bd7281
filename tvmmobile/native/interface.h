/* Shared by all compiled networks. Every network's header contains this text; a program compiles it once. */
#ifndef TVMMOBILE_INTERFACE
#define TVMMOBILE_INTERFACE 1 /* increased when programs compiled with an older header could fail */

#include <stddef.h>
#include <stdint.h>

/* What calls return; NAME_message returns the meaning as a sentence. */
enum tvmmobile_error {
  TVMMOBILE_OK = 0,
  TVMMOBILE_VERSION = 1,    /* the program was compiled with the header of another interface, or its options have unknown flags */
  TVMMOBILE_NULL = 2,       /* a pointer is null */
  TVMMOBILE_ALIGNMENT = 3,  /* a buffer is not aligned to the description's alignment */
  TVMMOBILE_WORKSPACE = 4,  /* the workspace is smaller than the description's workspace_bytes */
  TVMMOBILE_UNREADY = 5,    /* the instance was not initialised, was freed, or was moved */
  TVMMOBILE_IN_USE = 6,     /* the instance is initialised already */
  TVMMOBILE_THREADS = 7,    /* more threads than the library was compiled for, or than init was given */
  TVMMOBILE_NO_THREADS = 8, /* threads cannot be started */
  TVMMOBILE_CPU = 13,       /* init: the CPU lacks instructions that the kernels use, so compile the library for its core; 9 to 12 are of images */
  TVMMOBILE_MEMORY = 14     /* init: no memory for expanded_bytes */
};

/* A tensor of the network's interface: contiguous, in the machine's byte order. */
typedef struct tvmmobile_tensor {
  const char *name;
  const char *type;   /* "float32", "uint8", "int8", "int32", "int64", or "float16": IEEE 754 binary16, as _Float16 or its bits in a uint16_t */
  const char *layout; /* order of the axes, such as "NCHW"; "" if they have no letters */
  const int64_t *shape;
  uint32_t rank;
  uint32_t scale_count; /* 0: not quantised; 1: one scale; otherwise one per index of `axis` */
  size_t bytes;
  const float *scales;        /* value = scale * (stored - zero point) */
  const int32_t *zero_points; /* one per scale */
  int32_t axis;
} tvmmobile_tensor;

/* Kernels tuned for one core; a library has one set of them, or one for each core that it was compiled for. */
typedef struct tvmmobile_set {
  const char *device; /* whose tuning records chose its kernels, such as "pi4" */
  const char *core;   /* such as "cortex-a72" */
  const char *needs;  /* CPU features beyond Armv8.0, as /proc/cpuinfo names them, separated by blanks */
  size_t workspace_bytes;
  size_t weight_bytes;
} tvmmobile_set;

typedef struct tvmmobile_description {
  uint32_t interface; /* TVMMOBILE_INTERFACE when the library was compiled */
  uint32_t threads;   /* most threads that can share the work */
  const char *name;
  const char *version; /* the compiler's */
  const char *core;    /* for which kernels were tuned, such as "cortex-a72"; several are separated by blanks */
  const tvmmobile_tensor *inputs;
  const tvmmobile_tensor *outputs;
  uint32_t input_count;
  uint32_t output_count;
  size_t workspace_bytes; /* enough for every set */
  size_t weight_bytes;    /* of all sets together; equal weights count once */
  size_t alignment;       /* of the workspace, inputs and outputs, in bytes */
  const tvmmobile_set *sets;
  const char *const *reasons; /* why an instance uses its set, see tvmmobile_instance */
  uint32_t set_count;
  const uint32_t *fastest_threads; /* for each set, by its device's records */
  size_t expanded_bytes; /* mapped by init for each instance: weights that the file stores in fewer bits */
} tvmmobile_description;

/* One piece of work: `number` counts from 0. */
typedef void (*tvmmobile_work)(void *data, uint32_t number);
/* The caller's threads: call work(data, 0) to work(data, count - 1), at the same time or not, and return when all have. */
typedef void (*tvmmobile_parallel)(void *pool, tvmmobile_work work, void *data, uint32_t count);
/* pthread_create and pthread_join. */
typedef int (*tvmmobile_create)(unsigned long *thread, const void *attributes, void *(*start)(void *), void *argument);
typedef int (*tvmmobile_join)(unsigned long thread, void **result);

#define TVMMOBILE_BIG_CORES 1u            /* flag: pin each thread of the library to one of the fastest cores */
#define TVMMOBILE_ANY_CPU 2u              /* flag: never return TVMMOBILE_CPU, where the system does not report what the CPU has */
#define TVMMOBILE_FASTEST_THREADS 4u      /* flag: take the set's fastest_threads, or as many as there are large CPUs; `threads` is a limit */
#define TVMMOBILE_SET(n) ((uint32_t)(n) << 24) /* flag: take the n-th of the description's sets, counted from 1 */
#define TVMMOBILE_ALWAYS_SPIN 0xffffffffu /* spins: never sleep */

/* Zeros mean the defaults. */
typedef struct tvmmobile_options {
  uint32_t threads; /* of a run: its caller and those that init starts; 0 means 1, or no limit with TVMMOBILE_FASTEST_THREADS */
  uint32_t spins;   /* polls before a waiting thread sleeps; 0 means 20000 */
  uint32_t flags;
  uint32_t reserved;           /* 0 */
  uint64_t cpus;               /* pin the library's thread i to the CPU of the i-th bit that is set; thread 0 is the caller's and is not pinned */
  tvmmobile_parallel parallel; /* use these threads, and start none */
  void *pool;                  /* its first argument */
  tvmmobile_create create;     /* where the loader hides pthread_create from libraries, such as Android's */
  tvmmobile_join join;
} tvmmobile_options;

/* Memory for an instance, provided by the program; it must not move between init and free. After init, its kernels are the description's
 * sets[state[0]], because of reasons[state[1]]; it has state[2] threads. */
typedef struct tvmmobile_instance {
  uint64_t state[128];
} tvmmobile_instance;

#endif
