/* Loads a C library as its own loader does and runs it: loaded LIBRARY.so INPUT.f32 THREADS [hand-over]
 *
 * For any C library: it declares itself what it calls. With a fourth word, pthread_create and pthread_join are handed over. */
#include "mobilenet_v1_0.25_128_float32_t4.h"

#define FUNCTION(name) __typeof__(&mobilenet_v1_0_25_128_##name) name = dlsym(library, "mobilenet_v1_0_25_128_" #name)
#define NOW 2 /* RTLD_NOW */

int printf(const char *, ...);
int puts(const char *);
int atoi(const char *);
void *fopen(const char *, const char *);
size_t fread(void *, size_t, size_t, void *);
int posix_memalign(void **, size_t, size_t);
void *dlopen(const char *, int);
void *dlsym(void *, const char *);
char *dlerror(void);
int pthread_create(unsigned long *, const void *, void *(*)(void *), void *);
int pthread_join(unsigned long, void **);

int main(int count, char **words) {
  void *library = dlopen(words[1], NOW);
  if (!library) return puts(dlerror()), 1;
  FUNCTION(describe);
  FUNCTION(init);
  FUNCTION(run);
  FUNCTION(free);
  FUNCTION(message);
  const tvmmobile_description *net = describe();
  size_t sizes[] = {net->inputs->bytes, net->outputs->bytes, net->workspace_bytes};
  void *memory[3];
  for (int i = 0; i < 3; ++i)
    if (posix_memalign(&memory[i], net->alignment, sizes[i])) return puts("no memory"), 1;
  void *file = fopen(words[2], "rb");
  if (!file || fread(memory[0], 1, sizes[0], file) != sizes[0]) return puts("no input"), 1;

  static tvmmobile_instance instance;
  tvmmobile_options options = {.threads = (uint32_t)atoi(words[3])};
  if (count > 4) options.create = pthread_create, options.join = pthread_join;
  const void *inputs[] = {memory[0]};
  void *outputs[] = {memory[1]};
  int code = init(TVMMOBILE_INTERFACE, &instance, &options);
  if (!code) code = run(&instance, inputs, outputs, memory[2], sizes[2], 0);
  if (code) return puts(message(code)), 1;
  free(&instance);

  const float *scores = outputs[0];
  size_t best = 0;
  for (size_t i = 1; i < sizes[1] / sizeof *scores; ++i)
    if (scores[i] > scores[best]) best = i;
  return printf("class %d: %.9g\n", (int)best, scores[best]) < 0;
}
