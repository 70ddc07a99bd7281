// Each thread's first-level data cache (and second, where each core has its own) and the level behind that all share, simulated on every
// access: least recently used, write-back, write-allocate.
//
// Addresses are the program's virtual ones, which QEMU places the same way every time. A shared second level is filled with every line that
// a first one misses and takes the dirty lines that it evicts; it does not hold what the first level holds by force. A third level holds
// what the private second ones evict, and gives a line away to the core that asks for it (Arm DynamIQ Shared Unit, TRM 100453, "L3 cache
// allocation policy"). A line that one core writes leaves the others' caches. Instruction fetches, and what the kernel reads and writes,
// are not seen.
#pragma once
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include "waiting.h"

// A line's number shifted left by three; the lowest bits say whether it is dirty, whether no other core has it, and whether it holds
// what another thread wrote and this one has not read yet (writers.h).
enum { DIRTY = 1, OWNED = 2, NEWS = 4, STATE_BITS = 3 };
#define NO_LINE (UINT64_MAX << STATE_BITS)

// A set's lines stand most recently used first.
typedef struct level {
    uint64_t *lines;
    uint64_t set_mask;
    uint32_t ways;
} level;

// First-level misses by what they cost, each counted once, and traffic beyond.
typedef struct misses {
    uint64_t l2, loads_from_l2, loads_from_l3, loads_from_memory, stores, fills, write_backs;
} misses;

typedef struct core {
    level l1d, l2;  // l2 without lines where all share one
    misses counted;
    bool busy;  // its own thread uses its first level, or another one looks into it
    struct core *next;
} core;

static level l1d_shape, l2_shape, shared;  // the shapes have no lines
static core *all_cores;
static uint32_t line_shift;
static uint64_t line_bytes;
static bool second_is_private;
static pthread_mutex_t beyond_first = PTHREAD_MUTEX_INITIALIZER;

static uint64_t line_count(const level *cache)
{
    return (cache->set_mask + 1) * cache->ways;
}

static void forget_level(level *cache)
{
    for (uint64_t i = 0; cache->lines && i < line_count(cache); i++)
        cache->lines[i] = NO_LINE;
}

static level make_level(const level *shape)
{
    level made = *shape;
    made.lines = malloc(line_count(shape) * sizeof(uint64_t));
    if (!made.lines)
        abort();
    forget_level(&made);
    return made;
}

static inline uint64_t *set_of(const level *cache, uint64_t line)
{
    return cache->lines + (line & cache->set_mask) * cache->ways;
}

static uint64_t *find_line(const level *cache, uint64_t line)
{
    uint64_t *set = set_of(cache, line);
    for (uint32_t way = 0; way < cache->ways; way++)
        if (set[way] >> STATE_BITS == line)
            return set + way;
    return NULL;
}

// Puts a line at the front in the place of `from`; those before it move back by one.
static inline void to_front(uint64_t *set, uint64_t *from, uint64_t line)
{
    for (; from > set; from--)
        *from = from[-1];
    *set = line;
}

// Puts a line at the front of its set; returns the one that leaves for it.
static uint64_t insert(level *cache, uint64_t line)
{
    uint64_t *set = set_of(cache, line >> STATE_BITS), *last = set + cache->ways - 1, victim = *last;
    to_front(set, last, line);
    return victim;
}

// A line that no cache above keeps arrives in the shared level.
static void put_into_shared(misses *counted, uint64_t line)
{
    uint64_t *found = find_line(&shared, line >> STATE_BITS);
    if (found)
        to_front(set_of(&shared, line >> STATE_BITS), found, line | (*found & DIRTY));
    else
        counted->write_backs += insert(&shared, line) & DIRTY;
}

// Puts a line into the core's own second level.
static void put_into_second(core *c, uint64_t line)
{
    uint64_t leaving = insert(&c->l2, line);
    if (leaving >> STATE_BITS != NO_LINE >> STATE_BITS)
        put_into_shared(&c->counted, leaving);
}

// A line leaves the first level.
static void evict_from_first(core *c, uint64_t victim)
{
    if (!(victim & DIRTY))
        return;
    uint64_t *found = second_is_private ? find_line(&c->l2, victim >> STATE_BITS) : NULL;
    if (!second_is_private)
        put_into_shared(&c->counted, victim);
    else if (found)
        to_front(set_of(&c->l2, victim >> STATE_BITS), found, victim);
    else
        put_into_second(c, victim);
}

enum source { FROM_L2, FROM_L3, FROM_MEMORY };

// The line in the shared second level, filled from memory if need be.
static enum source fetch_shared_second(core *c, uint64_t line)
{
    uint64_t *found = find_line(&shared, line);
    if (found) {
        to_front(set_of(&shared, line), found, *found);
        return FROM_L2;
    }
    c->counted.l2++;
    c->counted.fills++;
    c->counted.write_backs += insert(&shared, line << STATE_BITS) & DIRTY;
    return FROM_MEMORY;
}

// The line in the core's own second level, taken from the third or from memory if need be.
static enum source fetch_private_second(core *c, uint64_t line)
{
    uint64_t *found = find_line(&c->l2, line);
    if (found) {
        to_front(set_of(&c->l2, line), found, *found);
        return FROM_L2;
    }
    c->counted.l2++;
    found = find_line(&shared, line);
    uint64_t taken = found ? *found : line << STATE_BITS;
    if (found)
        *found = NO_LINE;
    else
        c->counted.fills++;
    put_into_second(c, taken);
    return found ? FROM_L3 : FROM_MEMORY;
}

static void enter(core *c)
{
    for (uint32_t tries = 0; __atomic_test_and_set(&c->busy, __ATOMIC_ACQUIRE); tries++)
        give_way(tries);
}

static void leave(core *c)
{
    __atomic_clear(&c->busy, __ATOMIC_RELEASE);
}

// What the other cores' caches do when this one reads or writes a line: one that has written it hands it to the shared level, all give it up
// for a store. Returns whether one of them had it.
static bool ask_others(core *self, uint64_t line, bool store)
{
    bool held = false;
    for (core *other = all_cores; other; other = other->next) {
        if (other == self)
            continue;
        const level *levels[] = {&other->l1d, &other->l2};
        enter(other);
        for (int i = 0; i < 2; i++) {
            uint64_t *found = levels[i]->lines ? find_line(levels[i], line) : NULL;
            if (!found)
                continue;
            held = true;
            if (*found & DIRTY)
                put_into_shared(&self->counted, line << STATE_BITS | DIRTY);
            *found = store ? NO_LINE : *found & ~(uint64_t)(DIRTY | OWNED);
        }
        leave(other);
    }
    return held;
}

// A miss in the first level, or a store to a line that other cores may have. One thread at a time; nobody else touches its first level then.
static void access_beyond_first(core *c, uint64_t line, bool store)
{
    uint64_t *found = find_line(&c->l1d, line);
    bool held = ask_others(c, line, store);
    if (found) {
        to_front(set_of(&c->l1d, line), found, *found | DIRTY | OWNED);
        return;
    }
    enum source source = second_is_private ? fetch_private_second(c, line) : fetch_shared_second(c, line);
    if (held && source == FROM_MEMORY && second_is_private) {  // another core gives it
        source = FROM_L3;
        c->counted.fills--;
    }
    c->counted.stores += store;
    c->counted.loads_from_l2 += !store && source == FROM_L2;
    c->counted.loads_from_l3 += !store && source == FROM_L3;
    c->counted.loads_from_memory += !store && source == FROM_MEMORY;
    evict_from_first(c, insert(&c->l1d, line << STATE_BITS | (store ? DIRTY | OWNED : held ? 0 : OWNED)));
}

// The line in the first level, now its set's first, if that does with itself alone; else NULL.
static inline uint64_t *hit_first(core *c, uint64_t line, bool store)
{
    uint64_t *set = set_of(&c->l1d, line);
    for (uint32_t way = 0; way < c->l1d.ways; way++)
        if (set[way] >> STATE_BITS == line) {
            if (store && !(set[way] & OWNED))
                return NULL;
            to_front(set, set + way, set[way] | store);
            return set;
        }
    return NULL;
}
