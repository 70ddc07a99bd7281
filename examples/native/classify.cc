// A network in C++: classify INPUT.f32 THREADS
//
// INPUT is the network's input as raw float32 (tvmmobile run --save-input writes one). Prints the class with the highest score.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>

#include "mobilenet_v1_0.25_128_float32_t4.h"

#define NET(name) mobilenet_v1_0_25_128_##name

// Memory as the network wants it: it begins at a cache line.
using Memory = std::unique_ptr<void, decltype(&std::free)>;

Memory Allocate(size_t bytes) {
  size_t line = NET(describe)()->alignment;
  Memory memory(std::aligned_alloc(line, (bytes + line - 1) / line * line), std::free);  // takes multiples of the alignment
  if (!memory) throw std::bad_alloc();
  return memory;
}

// The network with one input, one output and threads of its own.
class Network {
 public:
  explicit Network(uint32_t threads) {
    tvmmobile_options options{};
    options.threads = threads;
    Check(NET(init)(TVMMOBILE_INTERFACE, &instance_, &options));
  }
  ~Network() { NET(free)(&instance_); }
  Network(const Network&) = delete;  // an instance must not move
  Network& operator=(const Network&) = delete;

  float* input() { return static_cast<float*>(input_.get()); }
  const float* output() const { return static_cast<const float*>(output_.get()); }
  size_t input_bytes() const { return net_->inputs[0].bytes; }
  size_t outputs() const { return net_->outputs[0].bytes / sizeof(float); }

  void Run() {
    const void* inputs[] = {input_.get()};
    void* outputs[] = {output_.get()};
    Check(NET(run)(&instance_, inputs, outputs, workspace_.get(), net_->workspace_bytes, 0));
  }

 private:
  static void Check(int code) {
    if (code != TVMMOBILE_OK) throw std::runtime_error(NET(message)(code));
  }

  const tvmmobile_description* net_ = NET(describe)();
  Memory input_ = Allocate(net_->inputs[0].bytes);
  Memory output_ = Allocate(net_->outputs[0].bytes);
  Memory workspace_ = Allocate(net_->workspace_bytes);
  tvmmobile_instance instance_;
};

int main(int count, char** words) try {
  if (count != 3) throw std::invalid_argument("usage: classify INPUT.f32 THREADS");
  Network network(static_cast<uint32_t>(std::stoul(words[2])));
  std::ifstream file(words[1], std::ios::binary);
  if (!file.read(reinterpret_cast<char*>(network.input()), static_cast<std::streamsize>(network.input_bytes())))
    throw std::runtime_error(std::string(words[1]) + " does not hold an input");
  network.Run();
  const float* best = std::max_element(network.output(), network.output() + network.outputs());
  std::printf("class %td: %.9g\n", best - network.output(), *best);
  return 0;
} catch (const std::exception& error) {
  std::fprintf(stderr, "%s\n", error.what());
  return 1;
}
