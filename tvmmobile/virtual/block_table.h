// Translation blocks by address, length and bytes: translated again after a flush, a block goes on with the same counter, and other code
// at the same address gets another one. QEMU translates under a lock, so adding needs none.
#pragma once
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "plugin_api.h"

enum { INSN_BYTES = 4, BUCKETS = 1 << 16 };

typedef struct block {
    uint64_t address, count, count_before;
    struct block *next_in_bucket, *next;
    uint32_t bytes;
    unsigned char code[];
} block;

static block *buckets[BUCKETS];
static block *all_blocks;

// FNV-1a over the address and the code.
static uint32_t bucket_of(uint64_t address, const unsigned char *code, uint32_t bytes)
{
    uint64_t hash = UINT64_C(14695981039346656037) ^ address;
    for (uint32_t i = 0; i < bytes; i++)
        hash = (hash ^ code[i]) * UINT64_C(1099511628211);
    return (uint32_t)(hash ^ hash >> 32) % BUCKETS;
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
    memcpy(b->code, code, bytes);
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

static void remember_counts(void)
{
    for (block *b = all_blocks; b; b = b->next)
        b->count_before = b->count;
}

// A JSON array of [address, count since remember_counts, code in hexadecimal].
static void print_blocks(FILE *file)
{
    const char *separator = "[";
    for (block *b = all_blocks; b; b = b->next) {
        if (b->count == b->count_before)
            continue;
        fprintf(file, "%s[%" PRIu64 ",%" PRIu64 ",\"", separator, b->address, b->count - b->count_before);
        for (uint32_t i = 0; i < b->bytes; i++)
            fprintf(file, "%02x", b->code[i]);
        fputs("\"]", file);
        separator = ",\n";
    }
    fputs(*separator == '[' ? "[]" : "]", file);
}
