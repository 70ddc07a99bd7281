// QEMU plugin: counts the executed translation blocks between two marker system calls and writes them down with their code.
//
// Counters are plain additions compiled into the translated code; a forked process has its own copy of everything here.
// Counts are exact while one thread runs; program.c tells threads apart and simulates caches, at several times the cost.
//
// Argument: dir=DIRECTORY; each profile is DIRECTORY/<pid>.blocks, a JSON array of [address, count, code in hexadecimal].
#include <unistd.h>

#include "block_table.h"
#include "plugin_api.h"

EXPORT int qemu_plugin_version = 1;

static char directory[4096];

static void on_translate(qemu_plugin_id_t id, struct qemu_plugin_tb *tb)
{
    (void)id;
    qemu_plugin_register_vcpu_tb_exec_inline(tb, QEMU_PLUGIN_INLINE_ADD_U64, &block_of(tb)->count, 1);
}

static void end_region(void)
{
    char path[sizeof(directory) + 32];
    snprintf(path, sizeof(path), "%s/%d.blocks", directory, (int)getpid());
    FILE *file = fopen(path, "w");
    if (!file)
        return;
    print_blocks(file);
    fclose(file);
}

static void on_syscall(qemu_plugin_id_t id, unsigned int vcpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4,
                       uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8)
{
    (void)id, (void)vcpu, (void)a2, (void)a3, (void)a4, (void)a5, (void)a6, (void)a7, (void)a8;
    if (number != PRCTL)
        return;
    if (a1 == REGION_BEGIN)
        remember_counts();
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
