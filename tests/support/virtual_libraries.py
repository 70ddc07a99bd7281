"""Small AArch64 libraries for the tests of the agent: C functions with TVM's calling convention, built in milliseconds."""

from __future__ import annotations

import subprocess
from pathlib import Path

SOURCE = r"""
#include <stdint.h>
#include <stdlib.h>
#include <signal.h>
#include <unistd.h>
typedef struct { int32_t type, padding; void *value; } any;            /* TVMFFIAny */
/* DLTensor: */
typedef struct { float *data; int64_t device; int32_t ndim; uint32_t dtype; int64_t *shape, *strides; uint64_t offset; } tensor;
#define FUNCTION(name) int __tvm_ffi_##name(void *self, any *args, int32_t count, any *result)
FUNCTION(crash) { *(volatile int *)0 = 1; return 0; }
FUNCTION(hang) { for (volatile int i = 0;; i++) {} }
FUNCTION(hang_deaf) { signal(SIGTERM, SIG_IGN); for (volatile int i = 0;; i++) {} }
FUNCTION(hang_family) { fork(); fork(); for (volatile int i = 0;; i++) {} }
FUNCTION(sleep) { for (;;) pause(); }
FUNCTION(stop) { for (;;) kill(getpid(), SIGSTOP); }
FUNCTION(die) { kill(getpid(), SIGKILL); return 0; }
FUNCTION(leave) { _exit(3); }
FUNCTION(kill_agent) { kill(getppid(), SIGKILL); for (volatile int i = 0;; i++) {} }
FUNCTION(illegal) { __asm__ volatile(".word 0"); return 0; }
FUNCTION(scale) {  /* y = 2 x, with a little memory traffic through malloc */
    tensor *x = args[0].value, *y = args[1].value;
    float *copy = malloc(x->shape[0] * sizeof(float));
    for (int64_t i = 0; i < x->shape[0]; i++) copy[i] = x->data[i];
    for (int64_t i = 0; i < x->shape[0]; i++) y->data[i] = 2 * copy[i];
    free(copy);
    return 0;
}
FUNCTION(total) {  /* y[0] = the sum of x, each element read once */
    tensor *x = args[0].value, *y = args[1].value;
    float sum = 0;
    for (int64_t i = 0; i < x->shape[0]; i++) sum += x->data[i];
    y->data[0] = sum;
    return 0;
}
int (*__TVMBackendParallelLaunch)(int (*)(int, void *, void *), void *, int);  /* set when the library is loaded */
static int task(int number, void *environment, void *trips)
{
    long left = (long)trips;
#ifdef __aarch64__
    __asm__ volatile("1: subs %0, %0, #1\n b.ne 1b" : "+r"(left)::"cc");
#endif
    return (int)left;
}
FUNCTION(tasks) {  /* as many tasks as TVM's pool has threads, each of as many trips of two instructions as x has elements */
    return __TVMBackendParallelLaunch(task, (void *)((tensor *)args[0].value)->shape[0], 0);
}
"""


def build_library(folder: Path, compiler: str = "aarch64-linux-gnu-gcc") -> Path:
    """Compile `SOURCE` into a shared library in `folder`."""
    source, library = folder / "functions.c", folder / f"functions-{compiler}.so"
    source.write_text(SOURCE, encoding="utf-8")
    subprocess.run([compiler, "-O1", "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    return library
