// What runs a kernel and times it, by the clock or under QEMU's plugin: `tvmmobile.evaluator` and the memory figures.
#pragma once

#include <sys/prctl.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/json.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "calls.h"

namespace agent {

constexpr int kForget = 0x7a110003;  // the simulated caches become empty; as the marks of calls.h, it does nothing on a board
constexpr int kMostRunsPerSample = 1 << 20;
constexpr size_t kLineBytes = 64;  // or a part of a line

struct TimingSpec {
  int64_t warmup = 0, repeat = 1, number = 1, min_time_ms = 0, threads = 1;
  int64_t flush_bytes = 0;       // streamed over before each sample; a model's caches are emptied instead
  std::vector<int64_t> produce;  // arguments that their producer has just written: warm, unlike the weights
  bool model = false;            // have the plugin profile one run instead of reading the clock
  bool calls = false;            // of a virtual machine: call by call
};

inline TimingSpec ParseSpec(const ffi::String& text) {
  ffi::String problem;
  ffi::json::Value value = ffi::json::Parse(text, &problem);
  auto object = value.as<ffi::json::Object>();
  if (!object) TVM_FFI_THROW(ValueError) << "the timing specification is no JSON object: " << std::string(problem);
  TimingSpec spec;
  auto number = [&](const char* name, int64_t* into) {
    if (object->count(ffi::String(name)) != 0) *into = (*object)[ffi::String(name)].cast<int64_t>();
  };
  number("warmup", &spec.warmup);
  number("repeat", &spec.repeat);
  number("number", &spec.number);
  number("min_time_ms", &spec.min_time_ms);
  number("flush_bytes", &spec.flush_bytes);
  number("threads", &spec.threads);
  if (object->count(ffi::String("mode")) != 0) {
    std::string mode = (*object)[ffi::String("mode")].cast<ffi::String>();
    if (mode != "clock" && mode != "model") TVM_FFI_THROW(ValueError) << "mode must be clock or model, not " << mode;
    spec.model = mode == "model";
  }
  if (object->count(ffi::String("calls")) != 0) spec.calls = (*object)[ffi::String("calls")].cast<bool>();
  if (object->count(ffi::String("produce")) != 0) {
    for (const auto& index : (*object)[ffi::String("produce")].cast<ffi::json::Array>()) spec.produce.push_back(index.cast<int64_t>());
  }
  if (spec.warmup < 0 || spec.repeat < 1 || spec.number < 1 || spec.min_time_ms < 0 || spec.flush_bytes < 0 || spec.threads < 1)
    TVM_FFI_THROW(ValueError) << "repeat, number and threads must be at least 1, the rest not negative";
  return spec;
}

// A field of /proc/self/status in bytes, such as VmHWM; 0 where there is none.
inline int64_t MemoryField(const std::string& name) {
  std::ifstream status("/proc/self/status");
  std::string line;
  while (std::getline(status, line)) {
    if (line.rfind(name + ":", 0) == 0) return std::strtoll(line.c_str() + name.size() + 1, nullptr, 10) * 1024;
  }
  return 0;
}

inline std::string ProfilePath(const std::string& directory, pid_t process) {
  return directory + "/" + std::to_string(process) + ".profile";
}

// Removes what the plugin has written about a process.
inline void RemoveProfile(const std::string& directory, pid_t process) {
  std::string path = ProfilePath(directory, process);
  unlink(path.c_str());
  unlink((path + ".part").c_str());
  unlink((directory + "/" + std::to_string(process) + ".maps").c_str());
}

class Evaluator {
 public:
  Evaluator(ffi::Module module, const ffi::String& name, TimingSpec spec, const std::string& profile_dir)
      : module_(std::move(module)), spec_(std::move(spec)), profile_dir_(profile_dir) {
    auto found = module_->GetFunction(name, true);
    if (!found.has_value()) TVM_FFI_THROW(AttributeError) << "the library has no function " << std::string(name);
    function_ = found.value();
    if (spec_.model && profile_dir_.empty()) TVM_FFI_THROW(ValueError) << "this agent runs without QEMU's plugin";
    // TVM's thread pool reads this when it is first used; asking it to shrink later would start all threads first.
    setenv("TVM_NUM_THREADS", std::to_string(spec_.threads).c_str(), 1);
    // By itself the pool uses no more threads than the machine has cores, and under QEMU that is the host's number.
    constexpr int kBigCores = 1;  // threading::ThreadGroup::AffinityMode
    if (spec_.threads > 1) ffi::Function::GetGlobalRequired("runtime.config_threadpool")(kBigCores, static_cast<int>(spec_.threads));
  }

  std::string Run(ffi::PackedArgs args) {
    if (spec_.calls) return RecordCalls(args);
    return spec_.model ? Profile(args) : ReadClock(args);
  }

 private:
  void WarmUp(ffi::PackedArgs args) {
    for (int64_t i = 0; i < spec_.warmup; ++i) Call(args);
  }

  void Call(ffi::PackedArgs args) {
    ffi::Any ignored;
    function_.CallPacked(args.data(), args.size(), &ignored);
  }

  // The plugin's account of one run, its JSON as it is.
  std::string Profile(ffi::PackedArgs args) {
    agent_prctl(kForget, 0, 0, 0, 0);  // what sessions before this one have left
    WarmUp(args);
    if (spec_.flush_bytes > 0) agent_prctl(kForget, 0, 0, 0, 0);
    Produce(args);
    agent_prctl(kRegionBegin, 0, 0, 0, 0);
    Call(args);
    asm volatile("nop");  // calibration saw one more instruction here than the compiler needs now
    agent_prctl(kRegionEnd, 0, 0, 0, 0);
    return TakeProfile();
  }

  std::string TakeProfile() {
    std::ifstream file(ProfilePath(profile_dir_, getpid()), std::ios::binary);
    if (!file) TVM_FFI_THROW(RuntimeError) << "QEMU's plugin left no profile; is it loaded?";
    std::string profile((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    RemoveProfile(profile_dir_, getpid());
    return profile;
  }

  // What `CallRecorder` notes of some runs, and under QEMU the plugin's account, whose last regions are the calls.
  std::string RecordCalls(ffi::PackedArgs args) {
    CallRecorder recorder(spec_.model);
    ffi::Function set_instrument = module_->GetFunction("set_instrument", true).value();
    if (spec_.model) agent_prctl(kForget, 0, 0, 0, 0);
    WarmUp(args);
    set_instrument(recorder.Instrument());
    for (int64_t run = 0; run < (spec_.model ? 1 : spec_.repeat); ++run) {
      recorder.NextRun();
      Call(args);
    }
    set_instrument(ffi::Function(nullptr));
    return recorder.Json() + (spec_.model ? ",\"profile\":" + TakeProfile() + "}" : "}");
  }

  std::string ReadClock(ffi::PackedArgs args) {
    WarmUp(args);
    int64_t runs = spec_.number;
    if (spec_.min_time_ms > 0) {
      int64_t begin = NowNs();
      Call(args);
      int64_t once = std::max<int64_t>(NowNs() - begin, 1);
      runs = std::min<int64_t>(std::max(runs, spec_.min_time_ms * 1000000 / once + 1), kMostRunsPerSample);
    }
    std::string json = "{\"number\":" + std::to_string(runs) + ",\"samples_ns\":[";
    for (int64_t sample = 0; sample < spec_.repeat; ++sample) {
      Flush();
      Produce(args);
      int64_t begin = NowNs();
      for (int64_t i = 0; i < runs; ++i) Call(args);
      double each = static_cast<double>(NowNs() - begin) / static_cast<double>(runs);
      json += (sample == 0 ? "" : ",") + std::to_string(each);
    }
    return json + "]}";
  }

  // Streams over more memory than the caches hold, so that weights are as cold as in a network's run.
  void Flush() {
    if (spec_.flush_bytes == 0) return;
    flush_.resize(static_cast<size_t>(spec_.flush_bytes));
    volatile unsigned char* bytes = flush_.data();
    for (size_t i = 0; i < flush_.size(); i += kLineBytes) bytes[i] = static_cast<unsigned char>(bytes[i] + 1);
  }

  // Writes a byte of each line of arguments again, so that they are in the caches as the layer before would have left them.
  void Produce(ffi::PackedArgs args) {
    for (int64_t index : spec_.produce) {
      if (index < 0 || index >= args.size()) {
        TVM_FFI_THROW(ValueError) << "produce names argument " << index << " of " << args.size();
      }
      DLTensor* tensor = args[static_cast<int>(index)].cast<DLTensor*>();
      size_t bytes = ffi::GetDataSize(*tensor);
      auto* data = static_cast<volatile char*>(tensor->data) + tensor->byte_offset;
      for (size_t i = 0; i < bytes; i += kLineBytes) data[i] = data[i];
    }
  }

  ffi::Module module_;
  ffi::Function function_;
  TimingSpec spec_;
  const std::string& profile_dir_;  // the agent's own: a copy of it here would move what is allocated next
  std::vector<unsigned char> flush_;
};

// Bytes a second that one core reads and writes while it copies an array much larger than the caches; the best of some copies.
inline double CopyRate() {
  constexpr size_t kBytes = size_t{32} << 20;
  constexpr int kCopies = 5;
  std::vector<char> from(kBytes, 1), to(kBytes, 2);
  int64_t best = INT64_MAX;
  for (int i = 0; i < kCopies; ++i) {
    from[i] = static_cast<char>(to[i] + 1);  // no copy is the same as the one before
    int64_t begin = NowNs();
    std::copy(from.begin(), from.end(), to.begin());
    best = std::min(best, std::max<int64_t>(NowNs() - begin, 1));
  }
  return 2.0 * kBytes / static_cast<double>(best) * 1e9;
}

// Makes all of this callable by clients. `profile_dir` must outlive the session.
void RegisterTiming(const std::string& profile_dir, int64_t baseline_bytes);

}  // namespace agent
