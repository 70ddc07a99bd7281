/* Where a program for Android begins; the NDK's crtbegin_dynamic.o does the same. */
typedef void (*function)(void);
typedef struct structors {
  function *before, *at_start, *at_end; /* lists between -1 and 0 */
} structors;

extern int main(int, char **);
extern void __libc_init(void *stack, function at_exit, int (*begin)(int, char **), const structors *);

__attribute__((used)) static void start(void *stack) {
  static function none[] = {(function)-1, 0};
  static const structors lists = {none, none, none};
  __libc_init(stack, 0, main, &lists);
}

__asm__(".globl _start\n_start:\n  mov x0, sp\n  b start\n");
