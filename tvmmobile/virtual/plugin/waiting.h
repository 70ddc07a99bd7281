// How one of QEMU's threads waits for another: it spins, then sleeps for microseconds. It does not call sched_yield, and the program's calls
// of it, which QEMU passes on, do nothing where this library is preloaded: since Linux 6.18 a yield costs a whole time slice, and on a busy
// machine a thread that yields a hundred times does not run for seconds. A program's threads give way to each other by their clocks (pace.h).
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <time.h>

enum { SPINS = 100, SHORTEST_NAP_NS = 2000, NAPS_OF_A_LENGTH = 8, MOST_DOUBLINGS = 4 };

__attribute__((visibility("default"))) int sched_yield(void)
{
    return 0;
}

// One of several `tries`, counted from 0.
static void give_way(uint32_t tries)
{
    static __thread bool is_exact;
    if (tries < SPINS) {
#if defined(__x86_64__)
        __builtin_ia32_pause();
#else
        __asm__ volatile("yield");
#endif
        return;
    }
    if (!is_exact) {
        prctl(PR_SET_TIMERSLACK, 1UL);
        is_exact = true;
    }
    uint32_t doublings = (tries - SPINS) / NAPS_OF_A_LENGTH;
    nanosleep(&(struct timespec){0, SHORTEST_NAP_NS << (doublings < MOST_DOUBLINGS ? doublings : MOST_DOUBLINGS)}, NULL);
}
