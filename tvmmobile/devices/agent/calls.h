// One run of a Relax virtual machine, call by call: which functions of the library it called, and how long each took.
#pragma once

#include <unistd.h>
#include <time.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>

#include <cstdlib>
#include <functional>
#include <memory>
#include <string>
#include <vector>

// prctl(2), see timing.cc.
extern "C" int agent_prctl(int option, ...);

namespace agent {

namespace ffi = tvm::ffi;

// QEMU's plugin (virtual/program.c) watches for these calls; Linux itself refuses them with EINVAL, so they do nothing on a board.
constexpr int kRegionBegin = 0x7a110001;
constexpr int kRegionEnd = 0x7a110002;

inline int64_t NowNs() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

// What the machine calls between its kernels, to allocate and to check shapes, is not recorded.
constexpr char kBuiltin[] = "vm.builtin.";

class CallRecorder {
 public:
  // Each call becomes a region of QEMU's plugin if `model`, else it is timed by the clock.
  explicit CallRecorder(bool model) : model_(model) {}

  // What `set_instrument` of a virtual machine takes; the recorder must outlive the machine's runs.
  ffi::Function Instrument() {
    return ffi::Function::FromPacked([this](ffi::PackedArgs args, ffi::Any*) {
      // (function, its name, whether it is about to run, its result, its arguments ...); see TVM's vm.h.
      if (args[2].cast<bool>()) {
        Begin(args[1].cast<std::string>());
      } else {
        End();
      }
    });
  }

  // Calls recorded from now on are another run's.
  void NextRun() { runs_.emplace_back(); }

  // {"calls": names in order, "samples_ns": for each run the time of each call; empty where the plugin counts}
  std::string Json() const {
    std::string json = "{\"calls\":[";
    for (const Call& call : runs_.front()) json += (&call == &runs_.front().front() ? "\"" : ",\"") + Plain(call.name) + "\"";
    json += "],\"samples_ns\":[";
    for (size_t run = 0; run < runs_.size() && !model_; ++run) {
      json += run == 0 ? "[" : ",[";
      for (const Call& call : runs_[run]) json += (&call == &runs_[run].front() ? "" : ",") + std::to_string(call.ns);
      json += "]";
    }
    return json + "]";
  }

 private:
  struct Call {
    std::string name;
    int64_t ns;
  };

  void Begin(std::string name) {
    is_recorded_ = name.rfind(kBuiltin, 0) != 0;
    if (!is_recorded_) return;
    runs_.back().push_back({std::move(name), 0});
    if (model_) {
      agent_prctl(kRegionBegin, 0, 0, 0, 0);
    } else {
      begun_ns_ = NowNs();
    }
  }

  void End() {
    if (!is_recorded_) return;
    if (model_) {
      agent_prctl(kRegionEnd, 0, 0, 0, 0);
    } else {
      runs_.back().back().ns = NowNs() - begun_ns_;
    }
  }

  // Without what JSON gives a meaning.
  static std::string Plain(std::string name) {
    for (char& c : name) {
      if (c == '"' || c == '\\' || static_cast<unsigned char>(c) < ' ') c = '_';
    }
    return name;
  }

  bool model_;
  bool is_recorded_ = false;
  int64_t begun_ns_ = 0;
  std::vector<std::vector<Call>> runs_;
};

}  // namespace agent
