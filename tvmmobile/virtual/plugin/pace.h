// Threads keep pace with each other. What a library's threads do depends on who comes first (loops whose parts go to whoever is free), and on
// this machine that is anyone: it may have fewer processors than the board, and other work. So every thread has a clock, the instructions
// it has executed; before a thread publishes something it waits for those whose clocks are behind, and no thread gets far ahead of them.
// A thread that sleeps is not waited for; the one that wakes it sets its clock. Which of several sleepers Linux wakes is not known before
// the call: the one that sleeps longest is taken for it, and changes places with the one whose own call returns.
#pragma once
#include <pthread.h>
#include <time.h>

#include "block_table.h"
#include "waiting.h"

enum { FUTEX = 98, FUTEX_COMMAND = 127, FUTEX_WAIT = 0, FUTEX_WAKE = 1, FUTEX_WAIT_BITSET = 9, FUTEX_WAKE_BITSET = 10 };
enum { MOST_AHEAD = 20000, SPINS_AHEAD = 1000, YIELD_INSTRUCTIONS = 500, ROUND_INSTRUCTIONS = 200, WAIT_SHARE = 8 };
enum { ASLEEP, CALLED, AWAKE };
enum { MOST_YIELD_INSTRUCTIONS = 1 << 20, LOST_NS = 100000000 };

typedef struct pace {
    uint64_t clock;      // instructions
    uint64_t looked_at;  // the clock when this thread last looked at the others'
    int state;           // CALLED: taken for woken, has executed nothing since
    uint64_t sleeps_on;  // the futex's address, unless AWAKE
    uint64_t since;      // when it went to sleep, in a count of such events
    uint64_t waits_from; // the clock when it began to call sched_yield again and again
    uint64_t yielded_at; // the clock after the last call
} pace;

static pace paces[MOST_THREADS];
static uint32_t paced;  // paces[0 .. paced - 1] may be awake
static uint64_t naps;
static pthread_mutex_t waking = PTHREAD_MUTEX_INITIALIZER;

static uint64_t clock_of(const pace *p)
{
    return __atomic_load_n(&p->clock, __ATOMIC_RELAXED);
}

static int state_of(const pace *p)
{
    return __atomic_load_n(&p->state, __ATOMIC_RELAXED);
}

static void set_state(pace *p, int state)
{
    __atomic_store_n(&p->state, state, __ATOMIC_RELAXED);
}

// Executes, or will soon.
static bool awake(const pace *p)
{
    return state_of(p) != ASLEEP;
}

static void set_clock(pace *p, uint64_t clock)
{
    __atomic_store_n(&p->clock, clock, __ATOMIC_RELAXED);
}

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

// Waits until `other` has come to `clock`, sleeps, or does not move any more: QEMU may have stopped it.
static void wait_for(pace *other, uint64_t clock)
{
    uint64_t seen = 0, seen_at = 0;
    for (uint32_t tries = 0; awake(other) && clock_of(other) < clock; tries++) {
        give_way(tries);
        if (tries < SPINS)
            continue;
        if (clock_of(other) != seen || !seen_at) {
            seen = clock_of(other);
            seen_at = now_ns();
        } else if (now_ns() - seen_at > LOST_NS) {
            set_state(other, ASLEEP);
            return;
        }
    }
}

// Waits for all threads whose clocks are behind this one's by more than `ahead`.
static void keep_pace(unsigned int vcpu, uint64_t ahead)
{
    pace *own = &paces[vcpu];
    own->looked_at = own->clock;
    for (uint32_t i = 0; i < paced; i++)
        if (i != vcpu && awake(&paces[i]) && clock_of(&paces[i]) + ahead < own->clock)
            wait_for(&paces[i], own->clock - ahead);
}

// A sleeper's clock, if it is behind.
static void advance(pace *p, uint64_t clock)
{
    if (clock > p->clock)
        set_clock(p, clock);
    p->looked_at = p->clock;
}

// A thread that nobody woke goes on at the clock of those that run.
static void wake_up(unsigned int vcpu)
{
    pace *own = &paces[vcpu];
    pthread_mutex_lock(&waking);
    uint64_t least = UINT64_MAX;
    for (uint32_t i = 0; i < paced; i++)
        if (i != vcpu && awake(&paces[i]) && clock_of(&paces[i]) < least)
            least = clock_of(&paces[i]);
    advance(own, own->state == CALLED || least == UINT64_MAX ? 0 : least);
    own->sleeps_on = 0;
    paced = vcpu + 1 > paced ? vcpu + 1 : paced;
    set_state(own, AWAKE);
    pthread_mutex_unlock(&waking);
}

// Before a block is executed.
static void pace_block(unsigned int vcpu, uint64_t instructions, bool publishes)
{
    pace *own = &paces[vcpu];
    if (__builtin_expect(state_of(own) != AWAKE, 0))
        wake_up(vcpu);
    if (publishes)
        keep_pace(vcpu, 0);
    else if (own->clock - own->looked_at > MOST_AHEAD)
        keep_pace(vcpu, MOST_AHEAD);
    set_clock(own, own->clock + instructions);
}

static void fall_asleep(unsigned int vcpu, uint64_t futex)
{
    pthread_mutex_lock(&waking);
    paces[vcpu].sleeps_on = futex;
    paces[vcpu].since = ++naps;
    set_state(&paces[vcpu], ASLEEP);
    pthread_mutex_unlock(&waking);
}

// The one in this state on this futex that sleeps longest; NULL if there is none.
static pace *first_in(int state, uint64_t futex)
{
    pace *first = NULL;
    for (uint32_t i = 0; i < paced; i++)
        if (state_of(&paces[i]) == state && paces[i].sleeps_on == futex && (!first || paces[i].since < first->since))
            first = &paces[i];
    return first;
}

// Linux wakes those first that wait longest.
static void wake_others(unsigned int vcpu, uint64_t futex, uint64_t most)
{
    pthread_mutex_lock(&waking);
    pace *first;
    for (uint64_t woken = 0; woken < most && (first = first_in(ASLEEP, futex)); woken++) {
        advance(first, paces[vcpu].clock);
        set_state(first, CALLED);
    }
    pthread_mutex_unlock(&waking);
}

// Somebody woke this thread. If another one was taken for it, that one sleeps on.
static void woken(unsigned int vcpu)
{
    pace *own = &paces[vcpu];
    pthread_mutex_lock(&waking);
    pace *other = own->sleeps_on && own->state == ASLEEP ? first_in(CALLED, own->sleeps_on) : NULL;
    if (other) {
        advance(own, other->clock);
        set_state(own, CALLED);
        set_state(other, ASLEEP);
    }
    pthread_mutex_unlock(&waking);
}

// A call of sched_yield takes time. The longer a thread has been waiting, the longer it waits for the next look at what it waits for, by a
// share of that time: threads that spin for millions of instructions would hold each other up at every step. The share has a bound: it grows
// as a power of the number of calls, and the clocks would run over where all others sleep for long.
static void pass_time(unsigned int vcpu)
{
    pace *own = &paces[vcpu];
    if (own->clock - own->yielded_at > ROUND_INSTRUCTIONS)
        own->waits_from = own->clock;
    uint64_t share = (own->clock - own->waits_from) / WAIT_SHARE;
    share = share < MOST_YIELD_INSTRUCTIONS ? share : MOST_YIELD_INSTRUCTIONS;
    set_clock(own, own->clock + (share > YIELD_INSTRUCTIONS ? share : YIELD_INSTRUCTIONS));
    own->yielded_at = own->clock;
    keep_pace(vcpu, 0);
}

// Before a system call. Whatever may wait for something is taken for sleep; if it does not wait, the thread's next block wakes it at once.
static void pace_syscall(unsigned int vcpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3)
{
    uint64_t command = a2 & FUTEX_COMMAND;
    if (number == SCHED_YIELD)
        pass_time(vcpu);
    else if (number == FUTEX && (command == FUTEX_WAKE || command == FUTEX_WAKE_BITSET)) {
        keep_pace(vcpu, 0);
        wake_others(vcpu, a1, a3);
    } else if (number == FUTEX && (command == FUTEX_WAIT || command == FUTEX_WAIT_BITSET))
        fall_asleep(vcpu, a1);
    else if (number != PRCTL)
        fall_asleep(vcpu, 0);
}

// After a system call.
static void pace_return(unsigned int vcpu, int64_t number, int64_t result)
{
    if (number == FUTEX && result == 0)
        woken(vcpu);
}
