// Translation blocks by address, length and bytes: translated again after a flush, a block goes on with the same counters, and other code
// at the same address gets others. QEMU translates under a lock, so adding needs none.
#pragma once
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plugin_api.h"

enum { INSN_BYTES = 4, BUCKETS = 1 << 16, MOST_THREADS = 32 };

typedef struct block {
    uint64_t address;
    struct block *next_in_bucket, *next;
    uint32_t bytes, id;
    bool publishes;                 // holds an instruction that other threads may be waiting for
    uint64_t counts[MOST_THREADS];  // in each thread's present segment
    uint32_t marks[MOST_THREADS];   // the segment in which a thread last touched it
    unsigned char code[];
} block;

static block *buckets[BUCKETS];
static block *all_blocks;
static uint32_t block_count;

// FNV-1a over the address and the code.
static uint32_t bucket_of(uint64_t address, const unsigned char *code, uint32_t bytes)
{
    uint64_t hash = UINT64_C(14695981039346656037) ^ address;
    for (uint32_t i = 0; i < bytes; i++)
        hash = (hash ^ code[i]) * UINT64_C(1099511628211);
    return (uint32_t)(hash ^ hash >> 32) % BUCKETS;
}

// Store-release and exclusive stores, atomic operations on memory, and barriers other than for loads (Arm ARM, C4.1.88 to C4.1.94).
static bool publishes(uint32_t instruction)
{
    bool exclusive = (instruction & 0x3F400000) == 0x08000000;
    bool atomic = (instruction & 0x3F200C00) == 0x38200000;
    bool compare_and_swap = (instruction & 0x3FA07C00) == 0x08A07C00;
    bool barrier = (instruction & 0xFFFFF0FF) == 0xD50330BF && (instruction & 0x300) != 0x100;
    return exclusive || atomic || compare_and_swap || barrier;
}

static block *find_block(uint64_t address, const unsigned char *code, uint32_t bytes)
{
    block **bucket = &buckets[bucket_of(address, code, bytes)];
    for (block *b = *bucket; b; b = b->next_in_bucket)
        if (b->address == address && b->bytes == bytes && !memcmp(b->code, code, bytes))
            return b;
    block *b = calloc(1, sizeof(block) + bytes);
    if (!b)
        abort();
    b->address = address;
    b->bytes = bytes;
    b->id = block_count++;
    memcpy(b->code, code, bytes);
    for (uint32_t i = 0; i < bytes; i += INSN_BYTES) {
        uint32_t instruction;
        memcpy(&instruction, code + i, INSN_BYTES);
        b->publishes |= publishes(instruction);
    }
    b->next_in_bucket = *bucket;
    *bucket = b;
    b->next = all_blocks;
    all_blocks = b;
    return b;
}

static block *block_of(const struct qemu_plugin_tb *tb)
{
    static unsigned char code[4096 * INSN_BYTES];
    size_t count = qemu_plugin_tb_n_insns(tb);
    if (count > sizeof(code) / INSN_BYTES)
        abort();
    for (size_t i = 0; i < count; i++)
        memcpy(code + i * INSN_BYTES, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, i)), INSN_BYTES);
    return find_block(qemu_plugin_tb_vaddr(tb), code, (uint32_t)(count * INSN_BYTES));
}

// A JSON object of [address, code in hexadecimal] by id, of those blocks that `wanted` names.
static void print_blocks(FILE *file, const bool *wanted)
{
    const char *separator = "{";
    for (block *b = all_blocks; b; b = b->next) {
        if (!wanted[b->id])
            continue;
        fprintf(file, "%s\"%" PRIu32 "\":[%" PRIu64 ",\"", separator, b->id, b->address);
        for (uint32_t i = 0; i < b->bytes; i++)
            fprintf(file, "%02x", b->code[i]);
        fputs("\"]", file);
        separator = ",\n";
    }
    fputs(*separator == '{' ? "{}" : "}", file);
}
