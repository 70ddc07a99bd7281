"""Small AArch64 programs for the tests of `tvmmobile virtual run`, one source, one way of running for each argument."""

from __future__ import annotations

import subprocess
from pathlib import Path

SOURCE = r"""
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
static void begin(void) { prctl(0x7a110001, 0, 0, 0, 0); }
static void end(void) { prctl(0x7a110002, 0, 0, 0, 0); }
static void watch(void) { prctl(0x7a110004, 0, 0, 0, 0); }
static __attribute__((noinline)) void spin(long trips) /* two instructions a trip */
{
    __asm__ volatile("1: subs %0, %0, #1\n b.ne 1b" : "+r"(trips)::"cc");
}
static __attribute__((noinline)) void read_lines(const char *memory, long lines)
{
    __asm__ volatile("1: ldr q0, [%0], #64\n subs %1, %1, #1\n b.ne 1b" : "+r"(memory), "+r"(lines)::"v0", "cc", "memory");
}
static __attribute__((noinline)) void write_lines(char *memory, long lines)
{
    __asm__ volatile("1: str q0, [%0], #64\n subs %1, %1, #1\n b.ne 1b" : "+r"(memory), "+r"(lines)::"v0", "cc", "memory");
}
static void *counting(void *flag) { volatile long count = 0; while (!*(volatile int *)flag) count++; return 0; }
enum { TEAM = 4, ROUNDS = 8 };
static atomic_int round_begun, arrived;
static long share, (*share_of)(long member, int round);
static int yields, late;
static long even(long member, int round) { (void)member, (void)round; return share; }
static long uneven(long member, int round) { (void)round; return share * (member + 1); }
static long in_turns(long member, int round) { return round % TEAM == member ? 4 * share : share; }
static void wait_until(atomic_int *number, int least)
{
    while (atomic_load_explicit(number, memory_order_acquire) < least)
        if (yields) sched_yield();
}
static void *member(void *which)
{
    for (int round = 1; round <= ROUNDS; round++) {
        wait_until(&round_begun, round);
        spin(share_of((long)which, round));
        atomic_fetch_add(&arrived, 1);
    }
    return 0;
}
static void team(void) /* eight times fork and join, each member with its share of the trips */
{
    pthread_t others[TEAM];
    for (long i = 1; i < TEAM; i++) pthread_create(&others[i], 0, member, (void *)i);
    usleep(late ? 1000000 : 20000);
    begin();
    for (int round = 1; round <= ROUNDS; round++) {
        atomic_store_explicit(&round_begun, round, memory_order_release);
        spin(share_of(0, round));
        wait_until(&arrived, round * (TEAM - 1));
    }
    end();
    for (int i = 1; i < TEAM; i++) pthread_join(others[i], 0);
}
static void *working(void *unused) { (void)unused; begin(); spin(100000); end(); return 0; }
int main(int argc, char **argv)
{
    const char *what = argv[1];
    long n = argc > 2 ? atol(argv[2]) : 100000;
    pthread_t thread;
    int stop = 0;
    if (!strcmp(what, "region")) { spin(5000000); begin(); spin(n); end(); spin(5000000); }
    else if (!strcmp(what, "whole")) spin(n);
    else if (!strcmp(what, "watched")) {
        const long lines = 4096;
        char *memory = aligned_alloc(64, lines * 64);
        memset(memory, 1, lines * 64);
        spin(5000000); watch(); spin(1000);
        read_lines(memory, lines / 64);
        begin(); spin(n); read_lines(memory, lines / 64); end();
    }
    else if (!strcmp(what, "twice")) { begin(); spin(n); end(); spin(5000000); begin(); spin(n); end(); }
    else if (!strcmp(what, "nested")) { begin(); begin(); end(); end(); }
    else if (!strcmp(what, "unclosed")) begin();
    else if (!strcmp(what, "unopened")) end();
    else if (!strcmp(what, "leave")) { begin(); _exit(0); }
    else if (!strcmp(what, "crash")) { begin(); *(volatile int *)0 = 1; end(); }
    else if (!strcmp(what, "code")) { begin(); end(); return 3; }
    else if (!strcmp(what, "child")) { if (!fork()) { begin(); spin(n); end(); _exit(0); } wait(0); }
    else if (!strcmp(what, "children")) { for (int i = 0; i < 2; i++) if (!fork()) { begin(); end(); _exit(0); } while (wait(0) > 0) {} }
    else if (!strcmp(what, "fork")) { begin(); if (!fork()) { spin(3 * n); _exit(0); } spin(n); end(); wait(0); }
    else if (!strcmp(what, "helper")) {
        pthread_create(&thread, 0, counting, &stop);
        begin(); spin(n); usleep(50000); end(); stop = 1; pthread_join(thread, 0);
    }
    else if (!strncmp(what, "team-", 5)) {
        share = n;
        share_of = strstr(what, "uneven") ? uneven : strstr(what, "turns") ? in_turns : even;
        yields = strstr(what, "yield") != 0;
        late = strstr(what, "late") != 0;
        team();
    }
    else if (!strcmp(what, "crowd")) {
        pthread_t crowd[40];
        for (int i = 0; i < 40; i++) pthread_create(&crowd[i], 0, counting, &stop);
        begin(); spin(n); end();
        *(volatile int *)&stop = 1;
        for (int i = 0; i < 40; i++) pthread_join(crowd[i], 0);
    }
    else if (!strcmp(what, "worker")) { pthread_create(&thread, 0, working, 0); pthread_join(thread, 0); }
    else if (!strcmp(what, "two-threads")) {
        begin(); spin(n); end();
        pthread_create(&thread, 0, working, 0); pthread_join(thread, 0);
    }
    else if (!strcmp(what, "exec")) { execl("/bin/true", "true", (char *)0); return 1; }
    else if (!strcmp(what, "echo")) {
        char line[64] = "";
        if (!fgets(line, sizeof line, stdin)) return 1;
        printf("%s%s%s\n", line, getenv("GREETING"), getenv("LD_PRELOAD") ? " preloaded" : ""); fprintf(stderr, "to stderr\n");
    }
    else if (!strcmp(what, "clear")) {
        char *memory = malloc(1 << 20);
        memset(memory, 1, 1 << 20);
        begin(); memset(memory, 0, 1 << 20); end();
        return memory[n];
    }
    else { /* caches: n lines of 64 bytes, all touched once before the region */
        char *memory = aligned_alloc(1 << 21, 1 << 22);
        memset(memory, 1, 1 << 22);
        if (!strcmp(what, "reads")) { read_lines(memory, n); begin(); read_lines(memory, n); end(); }
        else if (!strcmp(what, "writes")) { write_lines(memory, n); begin(); write_lines(memory, n); end(); }
        else if (!strcmp(what, "straddle")) { read_lines(memory + 60, n); begin(); read_lines(memory + 60, n); end(); }
        else return 9;
    }
    return 0;
}
"""


def build_program(folder: Path) -> Path:
    """Compile `SOURCE` into a program in `folder`."""
    source, program = folder / "program.c", folder / "program"
    source.write_text(SOURCE, encoding="utf-8")
    subprocess.run(["aarch64-linux-gnu-gcc", "-O1", "-pthread", str(source), "-o", str(program)], check=True)
    return program
