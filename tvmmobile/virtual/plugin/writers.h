// Who wrote what last: for each eighth of a cache line, a stamp of the thread and its segment. Lines that share a place in the table make
// each other forgotten; a line that has been forgotten is one of long ago.
#pragma once
#include <stdint.h>

enum { PLACES = 1 << 16, PARTS = 8 };

typedef struct written_line {
    uint64_t line, stamps[PARTS];
} written_line;

static written_line written[PLACES];

static written_line *writers_of(uint64_t line)
{
    return written + line % PLACES;
}

// Which of a line's parts an access touches, a bit for each; offset and bytes within one line.
static uint32_t parts_of(uint64_t offset, uint64_t bytes, uint32_t line_shift)
{
    uint64_t first = offset * PARTS >> line_shift, last = (offset + bytes - 1) * PARTS >> line_shift;
    return (uint32_t)((UINT64_C(2) << last) - (UINT64_C(1) << first)) & ((1 << PARTS) - 1);
}

static void write_stamp(uint64_t line, uint32_t parts, uint64_t stamp)
{
    written_line *found = writers_of(line);
    if (found->line != line)
        *found = (written_line){.line = line};
    for (uint32_t i = 0; i < PARTS; i++)
        if (parts >> i & 1)
            found->stamps[i] = stamp;
}
