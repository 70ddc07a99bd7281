// A private first-level data cache and a second level behind it, simulated on every access: least recently used, write-back, write-allocate.
//
// Addresses are the program's virtual ones, which QEMU places the same way every time. The second level is filled with every line that the
// first one misses and takes the dirty lines that it evicts; it does not hold what the first level holds by force.
// Instruction fetches, and what the kernel reads and writes, are not seen.
#pragma once
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

// A set's lines, most recently used first: the line's number shifted left by one, the lowest bit set if it is dirty.
#define NO_LINE (UINT64_MAX - 1)

typedef struct level {
    uint64_t *entries, set_mask, misses;
    uint32_t ways;
} level;

static level l1d, l2;
static uint32_t line_shift;
static uint64_t line_bytes, write_backs;
// Misses of the first level by what they cost: stores, and loads that the second level missed too. The other loads hit the second level.
static uint64_t store_misses, load_misses_of_both;

static void forget_lines(level *cache)
{
    for (uint64_t i = 0; i < (cache->set_mask + 1) * cache->ways; i++)
        cache->entries[i] = NO_LINE;
}

static void make_level(level *cache, uint64_t bytes, uint32_t ways)
{
    uint64_t sets = bytes / line_bytes / ways;
    cache->ways = ways;
    cache->set_mask = sets - 1;
    cache->entries = malloc(sets * ways * sizeof(uint64_t));
    if (!cache->entries)
        abort();
    forget_lines(cache);
}

// Moves entry `way` to the front as `entry`; those before it move back by one.
static inline void to_front(uint64_t *set, uint32_t way, uint64_t entry)
{
    for (; way; way--)
        set[way] = set[way - 1];
    set[0] = entry;
}

static void access_l2(uint64_t line, uint64_t dirty)
{
    uint64_t *set = l2.entries + (line & l2.set_mask) * l2.ways;
    for (uint32_t way = 0; way < l2.ways; way++)
        if (set[way] >> 1 == line) {
            to_front(set, way, set[way] | dirty);
            return;
        }
    l2.misses += !dirty;  // an evicted line comes whole: nothing is read for it
    write_backs += set[l2.ways - 1] & 1;
    to_front(set, l2.ways - 1, line << 1 | dirty);
}

static __attribute__((noinline)) void access_beyond_first(uint64_t *set, uint64_t line, uint64_t dirty)
{
    for (uint32_t way = 1; way < l1d.ways; way++)
        if (set[way] >> 1 == line) {
            to_front(set, way, set[way] | dirty);
            return;
        }
    uint64_t victim = set[l1d.ways - 1];
    uint64_t missed_before = l2.misses;
    l1d.misses++;
    access_l2(line, 0);
    store_misses += dirty;
    load_misses_of_both += dirty ? 0 : l2.misses - missed_before;
    if (victim & 1)
        access_l2(victim >> 1, 1);
    to_front(set, l1d.ways - 1, line << 1 | dirty);
}

static inline void access_line(uint64_t line, uint64_t dirty)
{
    uint64_t *set = l1d.entries + (line & l1d.set_mask) * l1d.ways;
    if (set[0] >> 1 == line)
        set[0] |= dirty;
    else
        access_beyond_first(set, line, dirty);
}
