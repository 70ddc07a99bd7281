/* Calls what is between Java and a network, with an environment of its own: call_network GLUE.so METHODS INPUT.f32 THREADS
 *
 * For any C library, Android's included: it declares itself what it calls. */
#include "java_interface.h"

typedef int64_t Long;
int printf(const char *, ...);
int puts(const char *);
int atoi(const char *);
void *fopen(const char *, const char *);
unsigned long fread(void *, unsigned long, unsigned long, void *);
int snprintf(char *, unsigned long, const char *, ...);
void *dlopen(const char *, int);
void *dlsym(void *, const char *);
char *dlerror(void);

static void *library;
static const char *methods;

static void *method(const char *name) {
  char symbol[200];
  snprintf(symbol, sizeof symbol, "%s_%s", methods, name);
  return dlsym(library, symbol);
}

/* A class is its name, a buffer its memory, a string its text. */
static Object named(Java java, const char *name) { return (void)java, (Object)(uintptr_t)name; }
static int thrown(Java java, Object type, const char *message) { return (void)java, printf("%s: %s\n", (char *)type, message) < 0; }
static Object buffer(Java java, void *memory, Long bytes) { return (void)java, (void)bytes, memory; }

int main(int count, char **words) {
  library = count == 5 ? dlopen(words[1], 2 /* RTLD_NOW */) : 0;
  if (!library) return puts(dlerror()), 1;
  methods = words[2];
  static void *table[BUFFER_ADDRESS + 1];
  table[FIND_CLASS] = (void *)(uintptr_t)named;
  table[THROW_NEW] = (void *)(uintptr_t)thrown;
  table[NEW_STRING] = (void *)(uintptr_t)named;
  table[NEW_DIRECT_BUFFER] = (void *)(uintptr_t)buffer;
  void *const *environment = table;

  Long (*open)(Java, Object, int) = (Long(*)(Java, Object, int))(uintptr_t)method("open");
  Object (*memory)(Java, Object, Long, int) = (Object(*)(Java, Object, Long, int))(uintptr_t)method("memory");
  void (*compute)(Java, Object, Long) = (void (*)(Java, Object, Long))(uintptr_t)method("compute");
  void (*release)(Java, Object, Long) = (void (*)(Java, Object, Long))(uintptr_t)method("free");
  Object (*kernels)(Java, Object, Long, int) = (Object(*)(Java, Object, Long, int))(uintptr_t)method("kernels");
  Long (*number)(Java, Object, int, int, int) = (Long(*)(Java, Object, int, int, int))(uintptr_t)method("number");

  Long handle = open(&environment, 0, atoi(words[4]));
  if (!handle) return 1;
  Long elements[2] = {1, 1};
  for (int i = 0; i < 2; ++i)
    for (int j = 0; j < number(&environment, 0, i, 0, 0); ++j) elements[i] *= number(&environment, 0, i, 3, j);
  void *file = fopen(words[3], "rb");
  if (!file || fread(memory(&environment, 0, handle, 0), 4, (unsigned long)elements[0], file) != (unsigned long)elements[0])
    return puts("no input"), 1;
  compute(&environment, 0, handle);
  const float *scores = memory(&environment, 0, handle, 1);
  for (int i = 0; i < elements[1]; ++i) printf("%.9g ", scores[i]);
  printf("\n%s: %s\n", (char *)kernels(&environment, 0, handle, 0), (char *)kernels(&environment, 0, handle, 1));
  release(&environment, 0, handle);
  return 0;
}
