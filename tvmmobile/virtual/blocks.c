// QEMU plugin: counts the executed translation blocks between two marker system calls and writes them down with their code.
//
// The markers are prctl(0x7a110001) and prctl(0x7a110002), which Linux refuses, so that the same program runs on a board. A block is known
// by address, length and bytes: translated again after a flush, it goes on with the same counter, and other code at the same address gets
// another one. Counters are plain additions compiled into the translated code; a forked process has its own copy of everything here.
// Counts are exact while one thread runs; per-thread counters would be indexed by the virtual CPU that `on_translate` is given.
// Simulated caches have their place in `on_translate` too, as memory callbacks on each instruction.
//
// Argument: dir=DIRECTORY; each profile is DIRECTORY/<pid>.blocks, a JSON array of [address, count, code in hexadecimal].
// API: QEMU 7.2, docs/devel/tcg-plugins; Debian ships no qemu-plugin.h, so what is used of it is declared here.
#include <inttypes.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
typedef struct qemu_info_t qemu_info_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum qemu_plugin_op { QEMU_PLUGIN_INLINE_ADD_U64 };
typedef void (*translate_cb)(qemu_plugin_id_t id, struct qemu_plugin_tb *tb);
typedef void (*syscall_cb)(qemu_plugin_id_t id, unsigned int vcpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4,
                           uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, translate_cb callback);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t id, syscall_cb callback);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb *tb, enum qemu_plugin_op op, void *counter, uint64_t by);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t index);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *insn);

EXPORT int qemu_plugin_version = 1;

enum { PRCTL = 167, REGION_BEGIN = 0x7a110001, REGION_END = 0x7a110002, INSN_BYTES = 4, BUCKETS = 1 << 16 };

typedef struct block {
    uint64_t address, count, count_before;
    struct block *next_in_bucket, *next;
    uint32_t bytes;
    unsigned char code[];
} block;

static block *buckets[BUCKETS];
static block *all_blocks;
static char directory[4096];

// FNV-1a over the address and the code.
static uint32_t bucket_of(uint64_t address, const unsigned char *code, uint32_t bytes)
{
    uint64_t hash = UINT64_C(14695981039346656037) ^ address;
    for (uint32_t i = 0; i < bytes; i++)
        hash = (hash ^ code[i]) * UINT64_C(1099511628211);
    return (uint32_t)(hash ^ hash >> 32) % BUCKETS;
}

// QEMU translates under a lock, so this needs none.
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

static void on_translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    static unsigned char code[4096 * INSN_BYTES];
    size_t count = qemu_plugin_tb_n_insns(tb);
    (void)id;
    if (count > sizeof(code) / INSN_BYTES)
        abort();
    for (size_t i = 0; i < count; i++)
        memcpy(code + i * INSN_BYTES, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(tb, i)), INSN_BYTES);
    block *b = find_block(qemu_plugin_tb_vaddr(tb), code, (uint32_t)(count * INSN_BYTES));
    qemu_plugin_register_vcpu_tb_exec_inline(tb, QEMU_PLUGIN_INLINE_ADD_U64, &b->count, 1);
}

static void begin_region(void)
{
    for (block *b = all_blocks; b; b = b->next)
        b->count_before = b->count;
}

static void end_region(void)
{
    char path[sizeof(directory) + 32];
    snprintf(path, sizeof(path), "%s/%d.blocks", directory, (int)getpid());
    FILE *file = fopen(path, "w");
    if (!file)
        return;
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
    fclose(file);
}

static void on_syscall(qemu_plugin_id_t id, unsigned int vcpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4,
                       uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8)
{
    (void)id, (void)vcpu, (void)a2, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    if (number != PRCTL)
        return;
    if (a1 == REGION_BEGIN)
        begin_region();
    else if (a1 == REGION_END)
        end_region();
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
    (void)info;
    for (int i = 0; i < argc; i++)
        if (!strncmp(argv[i], "dir=", 4))
            snprintf(directory, sizeof(directory), "%s", argv[i] + 4);
    if (!*directory) {
        fprintf(stderr, "blocks: dir=DIRECTORY is needed\n");
        return -1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
    qemu_plugin_register_vcpu_syscall_cb(id, on_syscall);
    return 0;
}
