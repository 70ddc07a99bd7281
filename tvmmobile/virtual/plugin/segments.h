// What each thread of the region did, cut into segments at the places where threads wait for each other.
//
// A thread's segment ends where it publishes something (a release, an atomic operation, a barrier) and where it reads a line that another
// thread has written in a segment that it did not know of yet: the segment that begins there can only begin once that other segment has
// begun. So the segments with their predecessors are the run's dependency graph, whatever library made the threads, and time on it is
// a matter of what the segments cost, not of how this machine happened to schedule the threads.
//
// Waiting is not work: a round of a loop that stores nothing and loads from the same few addresses as the round before is taken back, and so
// is what a thread executes between two calls of sched_yield, if it is little.
#pragma once
#include <string.h>
#include <time.h>

#include "block_table.h"
#include "caches.h"
#include "pace.h"
#include "writers.h"

enum { NO_SEGMENT = 0, MOST_TOUCHED = 1 << 15, TRAIL = 64, MOST_LOADS = 4, LEAST_BLOCKS = 16 };

typedef struct segment {
    uint32_t region, thread, after, first_entry, entry_count;
    misses counted;
} segment;

typedef struct entry {
    uint32_t block;
    uint64_t count;
} entry;

// A load, and how many blocks had been executed before it.
typedef struct passed_load {
    uint64_t instruction, address, at;
} passed_load;

typedef struct thread {
    core cache;
    uint64_t region;                // the region that all this belongs to
    uint32_t segment;               // present segment, NO_SEGMENT before the first
    uint32_t known[MOST_THREADS];   // the latest segment of each other thread that this one waited for
    uint64_t blocks_in_segment;
    misses at_begin;                // of the segment
    block *touched[MOST_TOUCHED];   // blocks with a count in this segment
    uint32_t touched_count;
    block *trail[TRAIL];            // blocks executed last
    uint64_t trail_end;
    passed_load loads[2 * MOST_LOADS];  // since the last store
    uint64_t load_count;
    uint32_t repeated[MOST_LOADS + 1];  // how many of the last loads were the same as those that many loads before
    uint64_t yielded_at;                // in the trail
    bool is_publishing;                 // executes a block that publishes
} thread;

static thread *threads[MOST_THREADS];
static uint32_t thread_slots;  // threads[0 .. thread_slots - 1] may have caches
static uint64_t region;
static segment *segments;
static entry *entries;
static uint32_t segment_count = 1, first_reported = 1, first_of_region = 1, entry_count;  // segment 0 is none
static pthread_mutex_t recording = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t one_publishes = PTHREAD_MUTEX_INITIALIZER;
static bool someone_publishes;

static void *grown(void *array, uint32_t count, size_t each)
{
    // Powers of two from 1024 on.
    if (count < 1024 || count & (count - 1))
        return array ? array : malloc(1024 * each);
    return realloc(array, 2 * (size_t)count * each);
}

static void add_entry(uint32_t id, uint64_t count)
{
    if (!(entries = grown(entries, entry_count, sizeof(entry))))
        abort();
    entries[entry_count++] = (entry){id, count};
}

static void subtract(misses *from, const misses *what)
{
    uint64_t *left = (uint64_t *)from;
    const uint64_t *right = (const uint64_t *)what;
    for (size_t i = 0; i < sizeof(misses) / sizeof(uint64_t); i++)
        left[i] -= right[i];
}

// Writes a thread's counts into its present segment.
static void close_segment(thread *t, uint32_t number)
{
    if (t->segment == NO_SEGMENT)
        return;
    segment *s = segments + t->segment;
    s->first_entry = entry_count;
    for (uint32_t i = 0; i < t->touched_count; i++) {
        uint64_t *count = &t->touched[i]->counts[number];
        if (*count)
            add_entry(t->touched[i]->id, *count);
        *count = 0;
    }
    s->entry_count = entry_count - s->first_entry;
    s->counted = t->cache.counted;
    subtract(&s->counted, &t->at_begin);
    t->touched_count = 0;
    t->at_begin = t->cache.counted;
}

static void open_segment(thread *t, uint32_t number, uint32_t after)
{
    if (!(segments = grown(segments, segment_count, sizeof(segment))))
        abort();
    segments[segment_count] = (segment){.region = (uint32_t)region, .thread = number, .after = after};
    t->blocks_in_segment = 0;
    t->segment = segment_count++;
}

// Ends the present segment; the next one can begin only after segment `after` has begun.
static void next_segment(thread *t, uint32_t number, uint32_t after)
{
    pthread_mutex_lock(&recording);
    close_segment(t, number);
    open_segment(t, number, after);
    pthread_mutex_unlock(&recording);
}

// A thread's first block in a region: what it counted before is void.
static void join_region(thread *t, uint32_t number)
{
    for (uint32_t i = 0; i < t->touched_count; i++)
        t->touched[i]->counts[number] = 0;
    t->touched_count = 0;
    t->segment = NO_SEGMENT;
    t->trail_end += TRAIL + 1;  // what was passed before is out of reach
    memset(t->known, 0, sizeof(t->known));
    t->at_begin = t->cache.counted;
    t->region = region;
    next_segment(t, number, NO_SEGMENT);
}

static uint64_t stamp_of(const thread *t, uint32_t number)
{
    return (uint64_t)(number + 1) << 32 | t->segment;
}

static bool is_news(const thread *t, uint32_t number, uint64_t stamp)
{
    uint32_t writer = (uint32_t)(stamp >> 32) - 1, written_in = (uint32_t)stamp;
    return stamp && writer != number && written_in >= first_of_region && written_in > t->known[writer];
}

// A thread uses these parts of a line: it has waited for whoever wrote them. Returns whether there is news in other parts.
static bool wait_for_writers(thread *t, uint32_t number, uint64_t line, uint32_t parts)
{
    const written_line *found = writers_of(line);
    bool more = false;
    for (uint32_t i = 0; i < PARTS && found->line == line && t->segment != NO_SEGMENT; i++) {
        uint64_t stamp = found->stamps[i];
        if (!is_news(t, number, stamp))
            continue;
        if (parts >> i & 1) {
            t->known[(stamp >> 32) - 1] = (uint32_t)stamp;
            next_segment(t, number, (uint32_t)stamp);
        } else
            more = true;
    }
    return more;
}

// QEMU calls back after an access, when others may already have seen what was written. So threads execute blocks that publish one after
// another, and who reads meanwhile waits until it is known who wrote. Nobody waits long: QEMU may have stopped the other thread.
enum { PATIENCE_NS = 100000000 };

static void end_publishing(thread *t)
{
    if (!t->is_publishing)
        return;
    t->is_publishing = false;
    __atomic_store_n(&someone_publishes, false, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&one_publishes);
}

static void begin_publishing(thread *t)
{
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += PATIENCE_NS;
    until.tv_sec += until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    t->is_publishing = !pthread_mutex_timedlock(&one_publishes, &until);
    if (t->is_publishing)
        __atomic_store_n(&someone_publishes, true, __ATOMIC_SEQ_CST);
}

static void let_others_publish(const thread *t)
{
    if (t->is_publishing || !__atomic_load_n(&someone_publishes, __ATOMIC_SEQ_CST))
        return;
    uint64_t until = now_ns() + PATIENCE_NS;
    for (uint32_t tries = 0; __atomic_load_n(&someone_publishes, __ATOMIC_SEQ_CST) && now_ns() < until; tries++)
        give_way(tries);
}

static void count_block(thread *t, uint32_t number, block *b, bool several)
{
    if (b->marks[number] != t->segment) {
        if (t->touched_count == MOST_TOUCHED)
            next_segment(t, number, NO_SEGMENT);
        b->marks[number] = t->segment;
        t->touched[t->touched_count++] = b;
    }
    b->counts[number]++;
    if (several)
        t->trail[t->trail_end++ % TRAIL] = b;
    t->blocks_in_segment++;
}

// Takes back the blocks executed since the trail was `at` long, if it still reaches that far.
static void take_back(thread *t, uint32_t number, uint64_t at)
{
    if (t->trail_end - at > TRAIL && t->trail_end > at)
        return;
    for (; t->trail_end > at; t->trail_end--) {
        uint64_t *count = &t->trail[(t->trail_end - 1) % TRAIL]->counts[number];
        *count -= *count > 0;  // it may have been written into a segment already
    }
}

static void pass_store(thread *t)
{
    if (t->load_count) {
        t->load_count = 0;
        memset(t->repeated, 0, sizeof(t->repeated));
    }
}

static void pass_load(thread *t, uint32_t number, uint64_t instruction, uint64_t address)
{
    uint64_t now = t->load_count++;
    for (uint32_t round = 1; round <= MOST_LOADS && round <= now; round++) {
        const passed_load *before = &t->loads[(now - round) % (2 * MOST_LOADS)];
        if (before->instruction != instruction || before->address != address)
            t->repeated[round] = 0;
        else if (++t->repeated[round] >= round) {
            take_back(t, number, before->at);
            keep_pace(number, SPINS_AHEAD);
            break;
        }
    }
    t->loads[now % (2 * MOST_LOADS)] = (passed_load){instruction, address, t->trail_end};
}

static void pass_yield(thread *t, uint32_t number)
{
    take_back(t, number, t->yielded_at);
    t->yielded_at = t->trail_end;
}
