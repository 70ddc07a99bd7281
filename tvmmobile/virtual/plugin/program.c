// QEMU plugin: what the threads of a program executed between two marker system calls, or in its whole run, and how they used the caches.
//
// The caches follow every thread from its start, each on a core of its own, so that a region finds them as warm as the program left them; with
// `watch=marked` from the program's WATCH marker, before which it runs some eight times as fast. A region that is opened again adds to what
// was counted. A forked process has its own copy of everything here, and reports only regions
// that it opened itself.
//
// Arguments: dir=DIRECTORY, line=BYTES, l1d=BYTES/WAYS, l2=BYTES/WAYS and, where each core has its own second level, l3=BYTES/WAYS; and perhaps
// watch=marked.
// Output: DIRECTORY/<pid>.profile, a JSON object, written when a region ends and at the end of a program without regions;
// DIRECTORY/<pid>.maps, that process's /proc/self/maps.
#include <unistd.h>

#include "plugin_api.h"
#include "segments.h"

EXPORT int qemu_plugin_version = 1;

static char directory[4096];
static pid_t owner;                // the process whose region it is
static unsigned int opener;        // the thread that opened the region, or the program's first
static bool is_open = true;        // the whole run, until there is a marker
static unsigned int regions;       // opened by markers
static unsigned int alive;         // threads that have not ended
static bool several;               // there were more than one of them in the region
static bool is_watched = true;     // what runs now
static const char *problem = "";
static uint64_t guest_base;

static void complain(const char *sentence)
{
    if (!*problem)
        problem = sentence;
}

// The place of a thread in all arrays here: QEMU's number, as long as there is room. Every callback begins with it.
static inline unsigned int place_of(unsigned int vcpu)
{
    if (__builtin_expect(vcpu < MOST_THREADS, 1))
        return vcpu;
    complain("it has more than 32 threads at once");
    return MOST_THREADS - 1;
}

static thread *thread_of(unsigned int vcpu)
{
    thread *t = threads[vcpu];
    if (__builtin_expect(t != NULL, 1))
        return t;
    pthread_mutex_lock(&beyond_first);
    if (!threads[vcpu]) {
        t = calloc(1, sizeof(thread));
        if (!t)
            abort();
        t->cache.l1d = make_level(&l1d_shape);
        if (second_is_private)
            t->cache.l2 = make_level(&l2_shape);
        t->cache.next = all_cores;
        all_cores = &t->cache;
        threads[vcpu] = t;
        thread_slots = vcpu + 1 > thread_slots ? vcpu + 1 : thread_slots;
    }
    pthread_mutex_unlock(&beyond_first);
    return threads[vcpu];
}

static void on_block(unsigned int vcpu, void *data)
{
    block *b = data;
    vcpu = place_of(vcpu);
    thread *t = thread_of(vcpu);
    end_publishing(t);
    if (alive > 1)
        pace_block(vcpu, b->bytes / INSN_BYTES, b->publishes);
    if (!is_open)
        return;
    if (__builtin_expect(t->region != region || t->segment == NO_SEGMENT, 0))
        join_region(t, vcpu);
    if (several && b->publishes) {
        if (t->blocks_in_segment >= LEAST_BLOCKS)
            next_segment(t, vcpu, NO_SEGMENT);
        begin_publishing(t);
    }
    count_block(t, vcpu, b, several);
}

static void access_line(thread *t, uint64_t line, bool store)
{
    if (!hit_first(&t->cache, line, store))
        access_beyond_first(&t->cache, line, store);
}

// The same while there are other threads.
static void access_line_of_several(thread *t, unsigned int vcpu, uint64_t line, bool store, uint32_t parts)
{
    if (!store)
        let_others_publish(t);
    enter(&t->cache);
    const uint64_t *found = hit_first(&t->cache, line, store);
    bool news = found && *found & NEWS;
    leave(&t->cache);
    if (!found) {
        pthread_mutex_lock(&beyond_first);
        access_beyond_first(&t->cache, line, store);
        if (is_open && wait_for_writers(t, vcpu, line, parts))
            *set_of(&t->cache.l1d, line) |= NEWS;
        if (store)
            write_stamp(line, parts, stamp_of(t, vcpu));
        pthread_mutex_unlock(&beyond_first);
        return;
    }
    if (news && is_open)
        wait_for_writers(t, vcpu, line, parts);
    if (store)
        write_stamp(line, parts, stamp_of(t, vcpu));
}

static __attribute__((noinline)) void on_access_of_several(thread *t, unsigned int vcpu, uint64_t address, uint64_t bytes, bool store,
                                                           uint64_t instruction)
{
    uint64_t line = address >> line_shift, offset = address & (line_bytes - 1), inside = offset + bytes > line_bytes ? line_bytes - offset : bytes;
    access_line_of_several(t, vcpu, line, store, parts_of(offset, inside, line_shift));
    if (inside < bytes)
        access_line_of_several(t, vcpu, line + 1, store, parts_of(0, bytes - inside, line_shift));
    if (!is_open || t->region != region)
        return;
    if (store)
        pass_store(t);
    else
        pass_load(t, vcpu, instruction, address);
}

static void on_access(unsigned int vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *instruction)
{
    vcpu = place_of(vcpu);
    thread *t = thread_of(vcpu);
    bool store = qemu_plugin_mem_is_store(info);
    uint64_t line = address >> line_shift, bytes = UINT64_C(1) << qemu_plugin_mem_size_shift(info);
    if (__builtin_expect(several, 0)) {
        on_access_of_several(t, vcpu, address, bytes, store, (uint64_t)(uintptr_t)instruction);
        return;
    }
    access_line(t, line, store);
    if (__builtin_expect((address & (line_bytes - 1)) + bytes > line_bytes, 0))
        access_line(t, line + 1, store);
}

static void on_translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_cb(tb, on_block, QEMU_PLUGIN_CB_NO_REGS, block_of(tb));
    // Registered for loads alone or stores alone, QEMU 7.2 calls back for the wrong ones.
    uint64_t address = qemu_plugin_tb_vaddr(tb);
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(tb); i++)
        qemu_plugin_register_vcpu_mem_cb(qemu_plugin_tb_get_insn(tb, i), on_access, QEMU_PLUGIN_CB_NO_REGS, QEMU_PLUGIN_MEM_RW,
                                         (void *)(uintptr_t)(address + i * INSN_BYTES));
    void *host = qemu_plugin_insn_haddr(qemu_plugin_tb_get_insn(tb, 0));
    if (host)
        guest_base = (uint64_t)(uintptr_t)host - address;
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

// Each segment is [region, thread, after, [misses as in struct misses], [block, count, block, count ...]]; the first one has number 1.
static void print_segments(FILE *file)
{
    const char *separator = "[";
    for (uint32_t i = first_reported; i < segment_count; i++) {
        const segment *s = segments + i;
        const misses *m = &s->counted;
        uint32_t after = s->after == NO_SEGMENT ? 0 : s->after - first_reported + 1;
        fprintf(file, "%s[%" PRIu32 ",%" PRIu32 ",%" PRIu32, separator, s->region, s->thread, after);
        fprintf(file, ",[%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%" PRIu64 "],[", m->l2, m->loads_from_l2,
                m->loads_from_l3, m->loads_from_memory, m->stores, m->fills, m->write_backs);
        for (uint32_t j = 0; j < s->entry_count; j++) {
            const entry *e = entries + s->first_entry + j;
            fprintf(file, "%s%" PRIu32 ",%" PRIu64, j ? "," : "", e->block, e->count);
        }
        fputs("]]", file);
        separator = ",\n";
    }
    fputs(*separator == '[' ? "[]" : "]", file);
}

static void write_profile(void)
{
    char path[sizeof(directory) + 32], temporary[sizeof(path) + 8];
    snprintf(path, sizeof(path), "%s/%d.profile", directory, (int)getpid());
    snprintf(temporary, sizeof(temporary), "%s.part", path);
    FILE *file = fopen(temporary, "w");
    bool *wanted = calloc(block_count + 1, sizeof(bool));
    if (!file || !wanted)
        return;
    for (uint32_t i = 0; i < entry_count; i++)
        wanted[entries[i].block] = true;
    fprintf(file, "{\"problem\":\"%s\",\"regions\":%u,\"guest_base\":%" PRIu64 ",\"thread\":%u,\n\"segments\":", problem, regions, guest_base,
            opener);
    print_segments(file);
    fputs(",\n\"blocks\":", file);
    print_blocks(file, wanted);
    fputs("}\n", file);
    free(wanted);
    if (!fclose(file))
        rename(temporary, path);
}

// Closes every thread's segment; threads other than the caller's are waiting, or what they do belongs to no region.
static void close_all(void)
{
    pthread_mutex_lock(&recording);
    for (uint32_t i = 0; i < thread_slots; i++)
        if (threads[i] && threads[i]->region == region) {
            close_segment(threads[i], i);
            threads[i]->segment = NO_SEGMENT;
        }
    pthread_mutex_unlock(&recording);
}

static void forget_thread(thread *t)
{
    forget_level(&t->cache.l1d);
    forget_level(&t->cache.l2);
}

static void forget_lines(void)
{
    pthread_mutex_lock(&beyond_first);
    for (uint32_t i = 0; i < thread_slots; i++)
        if (threads[i])
            forget_thread(threads[i]);
    forget_level(&shared);
    pthread_mutex_unlock(&beyond_first);
}

// A forked process has one thread; the other ones are its parent's.
static void forget_others(unsigned int vcpu)
{
    for (uint32_t i = 0; i < thread_slots; i++)
        if (threads[i] && i != vcpu)
            forget_thread(threads[i]);
}

static void begin_region(unsigned int vcpu)
{
    if (is_open && regions) {
        complain("a region begins inside a region");
        return;
    }
    if (owner != getpid())
        forget_others(vcpu);
    else if (regions && vcpu != opener)
        complain("regions begin in different threads");
    pthread_mutex_lock(&recording);
    if (!regions) {  // what ran so far does not count
        first_reported = segment_count;
        entry_count = 0;
    }
    first_of_region = segment_count;
    region++;
    pthread_mutex_unlock(&recording);
    owner = getpid();
    several = alive > 1;
    opener = vcpu;
    regions++;
    is_open = true;
    join_region(thread_of(vcpu), vcpu);
}

static void end_region(unsigned int vcpu)
{
    if (!is_open || !regions || owner != getpid())
        complain("a region ends that was not begun");
    else if (vcpu != opener)
        complain("a region ends in another thread than it began in");
    is_open = false;
    owner = getpid();
    close_all();
    write_maps();
    write_profile();
}

static void register_callbacks(qemu_plugin_id_t id);

static void on_syscall(qemu_plugin_id_t id, unsigned int vcpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4,
                       uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8)
{
    (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    vcpu = place_of(vcpu);
    thread *t = thread_of(vcpu);
    end_publishing(t);
    if (alive > 1)
        pace_syscall(vcpu, number, a1, a2, a3);
    if (number == SCHED_YIELD && is_open && several)
        pass_yield(t, vcpu);
    if (number != PRCTL)
        return;
    if (a1 == REGION_BEGIN && !is_watched)
        complain("a region begins before the program says what to watch");
    else if (a1 == REGION_BEGIN)
        begin_region(vcpu);
    else if (a1 == REGION_END)
        end_region(vcpu);
    else if (a1 == FORGET_LINES)
        forget_lines();
    else if (a1 == WATCH && !is_watched) {
        is_watched = true;
        qemu_plugin_reset(id, register_callbacks);  // QEMU translates everything anew
    }
}

static void on_return(qemu_plugin_id_t id, unsigned int vcpu, int64_t number, int64_t result)
{
    (void)id;
    if (alive > 1)
        pace_return(place_of(vcpu), number, result);
}

static void on_thread_begins(qemu_plugin_id_t id, unsigned int vcpu)
{
    (void)id, (void)vcpu;
    several |= ++alive > 1;
}

static void on_thread_ends(qemu_plugin_id_t id, unsigned int vcpu)
{
    (void)id;
    vcpu = place_of(vcpu);
    end_publishing(thread_of(vcpu));
    fall_asleep(vcpu, 0);
    alive -= alive > 0;
}

static void before_fork(void)
{
    pthread_mutex_lock(&beyond_first);
    pthread_mutex_lock(&recording);
}

static void after_fork(void)
{
    pthread_mutex_unlock(&recording);
    pthread_mutex_unlock(&beyond_first);
}

static void after_fork_in_child(void)
{
    after_fork();
    pthread_mutex_init(&one_publishes, NULL);
    someone_publishes = false;
    alive = 1;
    several = false;
    pthread_mutex_init(&waking, NULL);
    memset(paces, 0, sizeof(paces));
}

static void at_exit(qemu_plugin_id_t id, void *data)
{
    (void)id, (void)data;
    if (!is_open || owner != getpid())
        return;
    if (!is_watched)
        complain("it never says what to watch");
    if (regions)
        complain("a region was begun and never ended");
    close_all();
    write_maps();
    write_profile();
}

// All callbacks, but before the program says what to watch none for blocks and accesses.
static void register_callbacks(qemu_plugin_id_t id)
{
    qemu_plugin_register_vcpu_init_cb(id, on_thread_begins);
    qemu_plugin_register_vcpu_exit_cb(id, on_thread_ends);
    if (is_watched)
        qemu_plugin_register_vcpu_tb_trans_cb(id, on_translate);
    qemu_plugin_register_vcpu_syscall_cb(id, on_syscall);
    qemu_plugin_register_vcpu_syscall_ret_cb(id, on_return);
    qemu_plugin_register_atexit_cb(id, at_exit, NULL);
}

static bool read_level(const char *text, level *cache)
{
    uint64_t bytes;
    uint32_t ways;
    if (sscanf(text, "%" SCNu64 "/%" SCNu32, &bytes, &ways) != 2 || !line_bytes || !ways || bytes < line_bytes * ways)
        return false;
    *cache = (level){.set_mask = bytes / line_bytes / ways - 1, .ways = ways};
    return true;
}

EXPORT int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
    bool good = true;
    level l3_shape = {0};
    (void)info;
    for (int i = 0; i < argc; i++)
        if (!strncmp(argv[i], "dir=", 4))
            snprintf(directory, sizeof(directory), "%s", argv[i] + 4);
        else if (!strncmp(argv[i], "line=", 5))
            line_shift = (uint32_t)__builtin_ctzll((line_bytes = strtoull(argv[i] + 5, NULL, 10)) | UINT64_C(1) << 63);
        else if (!strncmp(argv[i], "l1d=", 4))
            good &= read_level(argv[i] + 4, &l1d_shape);
        else if (!strncmp(argv[i], "l2=", 3))
            good &= read_level(argv[i] + 3, &l2_shape);
        else if (!strncmp(argv[i], "l3=", 3))
            good &= second_is_private = read_level(argv[i] + 3, &l3_shape);
        else if (!strcmp(argv[i], "watch=marked"))
            is_watched = false;
    if (!*directory || !l1d_shape.ways || !l2_shape.ways || !good) {
        fprintf(stderr, "program: dir=DIRECTORY, line=BYTES, l1d=BYTES/WAYS, l2=BYTES/WAYS and perhaps l3=BYTES/WAYS, in this order\n");
        return -1;
    }
    shared = make_level(second_is_private ? &l3_shape : &l2_shape);
    owner = getpid();
    pthread_atfork(before_fork, after_fork, after_fork_in_child);
    register_callbacks(id);
    return 0;
}
