// The plugin of program.c for cores that compute while memory delivers: its segments are cut into phases. What memory takes in one phase
// can pass beside what the core computes in it, but not beside another phase's work.
//
// A source of its own, so that what program.c writes stays the same to the last byte wherever there are no phases.
#include "segments.h"

// Some 50 to 100 thousand cycles: 4096 trips around the loops of matrix products.
enum { PHASE_BLOCKS = 4096 };

static void count_block_in_phase(thread *t, uint32_t number, block *b, bool several)
{
    if (t->blocks_in_segment >= PHASE_BLOCKS)
        next_segment(t, number, NO_SEGMENT);
    count_block(t, number, b, several);
}

#define count_block count_block_in_phase
#include "program.c"
