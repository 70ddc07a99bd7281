// What the plugins use of QEMU's plugin interface. Debian ships no qemu-plugin.h, so it is declared here.
// API: QEMU 7.2, docs/devel/tcg-plugins.
#pragma once
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define EXPORT __attribute__((visibility("default")))

typedef uint64_t qemu_plugin_id_t;
typedef uint32_t qemu_plugin_meminfo_t;
typedef struct qemu_info_t qemu_info_t;
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum qemu_plugin_cb_flags { QEMU_PLUGIN_CB_NO_REGS };
enum qemu_plugin_mem_rw { QEMU_PLUGIN_MEM_R = 1, QEMU_PLUGIN_MEM_W, QEMU_PLUGIN_MEM_RW };
typedef void (*translate_cb)(qemu_plugin_id_t id, struct qemu_plugin_tb *tb);
typedef void (*syscall_cb)(qemu_plugin_id_t id, unsigned int vcpu, int64_t number, uint64_t a1, uint64_t a2, uint64_t a3, uint64_t a4,
                           uint64_t a5, uint64_t a6, uint64_t a7, uint64_t a8);
typedef void (*return_cb)(qemu_plugin_id_t id, unsigned int vcpu, int64_t number, int64_t result);
typedef void (*execute_cb)(unsigned int vcpu, void *data);
typedef void (*memory_cb)(unsigned int vcpu, qemu_plugin_meminfo_t info, uint64_t address, void *data);
typedef void (*thread_cb)(qemu_plugin_id_t id, unsigned int vcpu);
typedef void (*exit_cb)(qemu_plugin_id_t id, void *data);
typedef void (*reset_cb)(qemu_plugin_id_t id);
void qemu_plugin_reset(qemu_plugin_id_t id, reset_cb callback);
void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t id, translate_cb callback);
void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t id, syscall_cb callback);
void qemu_plugin_register_vcpu_syscall_ret_cb(qemu_plugin_id_t id, return_cb callback);
void qemu_plugin_register_vcpu_init_cb(qemu_plugin_id_t id, thread_cb callback);
void qemu_plugin_register_vcpu_exit_cb(qemu_plugin_id_t id, thread_cb callback);
void qemu_plugin_register_atexit_cb(qemu_plugin_id_t id, exit_cb callback, void *data);
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb, execute_cb callback, enum qemu_plugin_cb_flags flags, void *data);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *insn, memory_cb callback, enum qemu_plugin_cb_flags flags,
                                      enum qemu_plugin_mem_rw which, void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t index);
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *insn);
void *qemu_plugin_insn_haddr(const struct qemu_plugin_insn *insn);
unsigned int qemu_plugin_mem_size_shift(qemu_plugin_meminfo_t info);
bool qemu_plugin_mem_is_store(qemu_plugin_meminfo_t info);

// Linux refuses prctl with these numbers, so that the same program runs on a board.
enum {
    SCHED_YIELD = 124,
    PRCTL = 167,
    REGION_BEGIN = 0x7a110001,
    REGION_END = 0x7a110002,
    FORGET_LINES = 0x7a110003,
    WATCH = 0x7a110004
};
