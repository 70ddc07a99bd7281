// What runs in a timed region is compiled by itself, without guards of the stack: they would be counted with every kernel.
#include "timing.h"

// As the linker's own stub, but with an address that stays: it is read in each region, and its place decides which lines share a set with it.
asm(R"(
    .section .data.rel.ro, "aw"
    .balign 65536
    .space 0xd8
agent_prctl_address:
    .xword prctl
    .text
    .globl agent_prctl
    .type agent_prctl, %function
agent_prctl:
    adrp x16, agent_prctl_address
    ldr x17, [x16, :lo12:agent_prctl_address]
    add x16, x16, :lo12:agent_prctl_address
    br x17
)");

namespace agent {

void RegisterTiming(const std::string& profile_dir, int64_t baseline_bytes) {
  auto make_evaluator = [&profile_dir](ffi::Module module, ffi::String name, ffi::String spec) {
    auto evaluator = std::make_shared<Evaluator>(std::move(module), name, ParseSpec(spec), profile_dir);
    auto run = [evaluator](ffi::PackedArgs args, ffi::Any* result) { *result = ffi::Bytes(evaluator->Run(args)); };
    return ffi::Function::FromPacked(run);
  };
  ffi::Function::SetGlobal("tvmmobile.evaluator", ffi::Function::FromTyped(make_evaluator), true);
  ffi::Function::SetGlobal("tvmmobile.peak_memory", ffi::Function::FromTyped([]() { return MemoryField("VmHWM"); }), true);
  ffi::Function::SetGlobal("tvmmobile.copy_rate", ffi::Function::FromTyped(CopyRate), true);
  ffi::Function::SetGlobal("tvmmobile.baseline_memory", ffi::Function::FromTyped([baseline_bytes]() { return baseline_bytes; }), true);
}

}  // namespace agent
