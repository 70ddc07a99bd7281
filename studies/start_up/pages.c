// QEMU plugin: how many pages of 4 KiB a program uses.
//
// A page counts from when an instruction of it is translated to be run, or one reads or writes it, or read() or pread() fills it, until it
// is unmapped or given back. Pages of files count as others do. QEMU's own memory never counts.
//
// Argument: out=FILE. The file then holds a JSON object: the pages at the start of the region, at its end, and the most in it and before it.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../../tvmmobile/virtual/plugin/plugin_api.h"

EXPORT int qemu_plugin_version = 1;

typedef void (*syscall_ret_cb)(qemu_plugin_id_t id, unsigned int vcpu, int64_t number, int64_t result);
void qemu_plugin_register_vcpu_syscall_ret_cb(qemu_plugin_id_t id, syscall_ret_cb callback);

// AArch64's numbers.
enum { READ = 63, PREAD = 67, BRK = 214, MUNMAP = 215, MREMAP = 216, MMAP = 222, MADVISE = 233, GIVE_BACK = 4, POPULATE = 0x8000 };
enum { PAGE_SHIFT = 12, LEAF_SHIFT = 15, ADDRESS_BITS = 48, MOST_THREADS = 256 };
#define LEAF_BYTES ((UINT64_C(1) << LEAF_SHIFT) / 8)

static unsigned char *leaves[UINT64_C(1) << (ADDRESS_BITS - PAGE_SHIFT - LEAF_SHIFT)];
static int64_t held, most, most_before, at_start;
static uint64_t arguments[MOST_THREADS][4], last_break;
static char path[4096];
static pid_t owner;

static unsigned char *byte_of(uint64_t page)
{
    unsigned char **leaf = &leaves[(page >> LEAF_SHIFT) & (sizeof(leaves) / sizeof(*leaves) - 1)];
    unsigned char *found = __atomic_load_n(leaf, __ATOMIC_ACQUIRE);
    if (__builtin_expect(!found, 0)) {
        unsigned char *fresh = calloc(1, LEAF_BYTES);
        if (!fresh)
            abort();
        if (__atomic_compare_exchange_n(leaf, &found, fresh, false, __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
            found = fresh;
        else
            free(fresh);
    }
    return found + (page & ((UINT64_C(1) << LEAF_SHIFT) - 1)) / 8;
}

static inline bool is_held(uint64_t page)
{
    return *byte_of(page) >> (page & 7) & 1;
}

static void hold(uint64_t page)
{
    unsigned char bit = (unsigned char)(1u << (page & 7));
    if (is_held(page) || __atomic_fetch_or(byte_of(page), bit, __ATOMIC_RELAXED) & bit)
        return;
    int64_t now = __atomic_add_fetch(&held, 1, __ATOMIC_RELAXED), before = __atomic_load_n(&most, __ATOMIC_RELAXED);
    while (now > before && !__atomic_compare_exchange_n(&most, &before, now, false, __ATOMIC_RELAXED, __ATOMIC_RELAXED))
        ;
}

static void release(uint64_t page)
{
    unsigned char bit = (unsigned char)(1u << (page & 7));
    if (__atomic_fetch_and(byte_of(page), (unsigned char)~bit, __ATOMIC_RELAXED) & bit)
        __atomic_sub_fetch(&held, 1, __ATOMIC_RELAXED);
}

// `does` for all pages that have a byte of [begin, begin + bytes).
static inline void each_page(uint64_t begin, uint64_t bytes, void (*does)(uint64_t))
{
    for (uint64_t page = begin >> PAGE_SHIFT; bytes && page <= (begin + bytes - 1) >> PAGE_SHIFT; page++)
        does(page);
}

static void on_access(unsigned int vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *data)
{
    (void)vcpu, (void)data;
    each_page(address, UINT64_C(1) << qemu_plugin_mem_size_shift(info), hold);
}

static void on_translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    size_t count = qemu_plugin_tb_n_insns(tb);
    (void)id;
    each_page(qemu_plugin_tb_vaddr(tb), 4 * count, hold);
    for (size_t i = 0; i < count; i++)
        qemu_plugin_register_vcpu_mem_cb(qemu_plugin_tb_get_insn(tb, i), on_access, QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_MEM_RW, NULL);
}

static void write_counts(void)
{
    FILE *file = fopen(path, "w");
    if (!file)
        return;
    fprintf(file, "{\"start\":%lld,\"end\":%lld,\"most\":%lld,\"most_before\":%lld}\n", (long long)at_start, (long long)held, (long long)most,
            (long long)most_before);
    fclose(file);
}

static void on_syscall(qemu_plugin_id_t id, unsigned int vcpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4, uint64_t a5,
                       uint64_t a6, uint64_t a7, uint64_t a8)
{
    (void)id, (void)a5, (void)a6, (void)a7, (void)a8;
    memcpy(arguments[vcpu % MOST_THREADS], (uint64_t[]){a1, a2, a3, a4}, sizeof(*arguments));
    if (number != PRCTL || owner != getpid())
        return;
    if (a1 == REGION_BEGIN) {
        most_before = most;
        most = at_start = held;
    } else if (a1 == REGION_END) {
        write_counts();
    }
}

// Pages keep what they hold when their mapping moves.
static void move(uint64_t from, uint64_t old_bytes, uint64_t to, uint64_t new_bytes)
{
    uint64_t pages = (old_bytes < new_bytes ? old_bytes : new_bytes) >> PAGE_SHIFT;
    for (uint64_t i = 0; from != to && i < pages; i++)
        if (is_held((from >> PAGE_SHIFT) + i)) {
            release((from >> PAGE_SHIFT) + i);
            hold((to >> PAGE_SHIFT) + i);
        }
    if (old_bytes > pages << PAGE_SHIFT)
        each_page(from + (pages << PAGE_SHIFT), old_bytes - (pages << PAGE_SHIFT), release);
}

static void on_return(qemu_plugin_id_t id, unsigned int vcpu, int64_t number, int64_t result)
{
    const uint64_t *a = arguments[vcpu % MOST_THREADS];
    (void)id;
    if (result < 0 && result > -4096)
        return;
    switch (number) {
    case READ:
    case PREAD:
        each_page(a[1], (uint64_t)result, hold);
        break;
    case MUNMAP:
        each_page(a[0], a[1], release);
        break;
    case MMAP:
        each_page((uint64_t)result, a[1], a[3] & POPULATE ? hold : release);
        break;
    case MREMAP:
        move(a[0], a[1], (uint64_t)result, a[2]);
        break;
    case MADVISE:
        if (a[2] == GIVE_BACK)
            each_page(a[0], a[1], release);
        break;
    case BRK:
        if ((uint64_t)result < last_break)
            each_page((uint64_t)result, last_break - (uint64_t)result, release);
        last_break = (uint64_t)result;
        break;
    }
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const struct qemu_info_t *info, int argc, char **argv)
{
    (void)info;
    if (argc != 1 || strncmp(argv[0], "out=", 4)) {
        fprintf(stderr, "pages: out=FILE\n");
        return -1;
    }
    snprintf(path, sizeof(path), "%s", argv[0] + 4);
    owner = getpid();
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
    qemu_plugin_register_vcpu_syscall_cb(id, on_syscall);
    qemu_plugin_register_vcpu_syscall_ret_cb(id, on_return);
    return 0;
}
