// QEMU plugin: what one thread of a program executed between two marker system calls, or in its whole run, and how it used the caches.
//
// The modelled thread is the one that opens the region, else the program's first; what others execute meanwhile is only counted. The
// caches follow that thread from its start, so that a region finds them as warm as the program left them. A region that is opened again
// adds to what was counted. A forked process has its own copy of everything here, and reports only regions that it opened itself.
//
// Arguments: dir=DIRECTORY, line=BYTES, l1d=BYTES/WAYS, l2=BYTES/WAYS. Output: DIRECTORY/<pid>.profile, a JSON object, written when a region
// ends and at the end of a program without regions; DIRECTORY/<pid>.maps, that process's /proc/self/maps.
#include <unistd.h>

#include "block_table.h"
#include "caches.h"
#include "plugin_api.h"

EXPORT int qemu_plugin_version = 1;

static char directory[4096];
static pid_t owner;                // the process whose region it is
static unsigned int modelled;      // the modelled thread's virtual CPU
static bool is_open = true;        // the whole run, until there is a marker
static unsigned int regions;       // opened by markers
static const char *problem = "";
static uint64_t other_instructions;
static uint64_t guest_base;

// What the caches counted in regions that are closed.
static struct {
    uint64_t l1d, l2, write_backs, stores, loads_of_both;
} counted;

static void on_block(unsigned int vcpu, void *data)
{
    block *b = data;
    if (!is_open)
        return;
    if (vcpu == modelled)
        b->count++;
    else
        __atomic_fetch_add(&other_instructions, b->bytes / INSN_BYTES, __ATOMIC_RELAXED);
}

static void on_access(unsigned int vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *data)
{
    (void)data;
    if (vcpu != modelled)
        return;
    uint64_t line = address >> line_shift, dirty = qemu_plugin_mem_is_store(info);
    access_line(line, dirty);
    // QEMU makes accesses of at most 16 bytes; only those near a line's end can reach into the next.
    if (__builtin_expect((address & (line_bytes - 1)) > line_bytes - 16, 0)) {
        uint64_t last = (address + (UINT64_C(1) << qemu_plugin_mem_size_shift(info)) - 1) >> line_shift;
        if (last != line)
            access_line(last, dirty);
    }
}

static void on_translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_cb(tb, on_block, QEMU_PLUGIN_CB_NO_REGS, block_of(tb));
    // Registered for loads alone or stores alone, QEMU 7.2 calls back for the wrong ones.
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++)
        qemu_plugin_register_vcpu_mem_cb(qemu_plugin_tb_get_insn(tb, i), on_access, QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_MEM_RW, NULL);
    void *host = qemu_plugin_insn_haddr(qemu_plugin_tb_get_insn(tb, 0));
    if (host)
        guest_base = (uint64_t)(uintptr_t)host - qemu_plugin_tb_vaddr(tb);
}

static void write_maps(void)
{
    char path[sizeof(directory) + 32], line[8192];
    snprintf(path, sizeof(path), "%s/%d.maps", directory, (int)getpid());
    FILE *from = fopen("/proc/self/maps", "r"), *to = fopen(path, "w");
    while (from && to && fgets(line, sizeof(line), from))
        fputs(line, to);
    if (from)
        fclose(from);
    if (to)
        fclose(to);
}

static void write_profile(void)
{
    char path[sizeof(directory) + 32], temporary[sizeof(path) + 8];
    snprintf(path, sizeof(path), "%s/%d.profile", directory, (int)getpid());
    snprintf(temporary, sizeof(temporary), "%s.part", path);
    FILE *file = fopen(temporary, "w");
    if (!file)
        return;
    fprintf(file, "{\"problem\":\"%s\",\"regions\":%u,\"guest_base\":%" PRIu64 ",\"other_instructions\":%" PRIu64 ",", problem, regions,
            guest_base, other_instructions);
    fprintf(file, "\"l1d_misses\":%" PRIu64 ",\"l2_misses\":%" PRIu64 ",\"write_backs\":%" PRIu64 ",", counted.l1d, counted.l2,
            counted.write_backs);
    fprintf(file, "\"store_misses\":%" PRIu64 ",\"load_misses_of_both\":%" PRIu64 ",\n\"blocks\":", counted.stores, counted.loads_of_both);
    print_blocks(file);
    fputs("}\n", file);
    if (!fclose(file))
        rename(temporary, path);
}

static void remember_misses(void)
{
    counted.l1d = l1d.misses;
    counted.l2 = l2.misses;
    counted.write_backs = write_backs;
    counted.stores = store_misses;
    counted.loads_of_both = load_misses_of_both;
}

static void go_on_counting_misses(void)
{
    l1d.misses = counted.l1d;
    l2.misses = counted.l2;
    write_backs = counted.write_backs;
    store_misses = counted.stores;
    load_misses_of_both = counted.loads_of_both;
}

static void complain(const char *sentence)
{
    if (!*problem)
        problem = sentence;
}

static void begin_region(unsigned int vcpu)
{
    if (is_open && regions) {
        complain("a region begins inside a region");
        return;
    }
    if (!regions)
        remember_counts();  // what ran so far does not count
    if (vcpu != modelled) {
        forget_lines(&l1d);
        forget_lines(&l2);
    }
    other_instructions = regions ? other_instructions : 0;
    go_on_counting_misses();
    owner = getpid();
    modelled = vcpu;
    regions++;
    is_open = true;
}

static void end_region(unsigned int vcpu)
{
    if (!is_open || !regions || owner != getpid())
        complain("a region ends that was not begun");
    else if (vcpu != modelled)
        complain("a region ends in another thread than it began in");
    is_open = false;
    owner = getpid();
    remember_misses();
    write_maps();
    write_profile();
}

static void on_syscall(qemu_plugin_id_t id, unsigned int vcpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4,
                       uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8)
{
    (void)id, (void)a2, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    if (number == PRCTL && a1 == REGION_BEGIN)
        begin_region(vcpu);
    else if (number == PRCTL && a1 == REGION_END)
        end_region(vcpu);
}

static void at_exit(qemu_plugin_id_t id, void *data)
{
    (void)id, (void)data;
    if (!is_open || owner != getpid())
        return;
    if (regions)
        complain("a region was begun and never ended");
    remember_misses();
    write_maps();
    write_profile();
}

static bool read_level(const char *text, level *cache)
{
    uint64_t bytes;
    uint32_t ways;
    if (sscanf(text, "%" SCNu64 "/%" SCNu32, &bytes, &ways) != 2 || !line_bytes || !ways || bytes < line_bytes * ways)
        return false;
    make_level(cache, bytes, ways);
    return true;
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
    bool good = true;
    (void)info;
    for (int i = 0; i < argc; i++)
        if (!strncmp(argv[i], "dir=", 4))
            snprintf(directory, sizeof(directory), "%s", argv[i] + 4);
        else if (!strncmp(argv[i], "line=", 5))
            line_shift = (uint32_t)__builtin_ctzll((line_bytes = strtoull(argv[i] + 5, NULL, 10)) | UINT64_C(1) << 63);
        else if (!strncmp(argv[i], "l1d=", 4))
            good &= read_level(argv[i] + 4, &l1d);
        else if (!strncmp(argv[i], "l2=", 3))
            good &= read_level(argv[i] + 3, &l2);
    if (!*directory || !l1d.entries || !l2.entries || !good) {
        fprintf(stderr, "program: dir=DIRECTORY, line=BYTES, l1d=BYTES/WAYS and l2=BYTES/WAYS are needed, in this order\n");
        return -1;
    }
    owner = getpid();
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
    qemu_plugin_register_vcpu_syscall_cb(id, on_syscall);
    qemu_plugin_register_atexit_cb(id, at_exit, NULL);
    return 0;
}
