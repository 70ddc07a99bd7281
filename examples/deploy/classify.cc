// A program of your own around a library of `--format vm`: classify LIBRARY.so INPUT.f32 [OUTPUT.f32]
//
// INPUT is the network's input as raw float32, NCHW (tvmmobile run --save-input writes one). Prints the five most likely classes and the
// latency; OUTPUT, if given, gets what the network returned. TVM's runtime does the rest: libtvm_runtime.so and libtvm_ffi.so.
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <numeric>
#include <stdexcept>
#include <string>
#include <vector>

namespace ffi = tvm::ffi;

constexpr int kPooledAllocator = 2;  // of TVM's virtual machine
constexpr int kRuns = 20;
constexpr int kShown = 5;

struct OnHeap {
  void AllocData(DLTensor* tensor) {
    tensor->data = std::aligned_alloc(64, (ffi::GetDataSize(*tensor) + 63) / 64 * 64);
    if (tensor->data == nullptr) throw std::bad_alloc();
  }
  void FreeData(DLTensor* tensor) { std::free(tensor->data); }
};

// The network in `path`, ready to run: load the library, then make and initialise its virtual machine.
ffi::Module LoadNetwork(const std::string& path) {
  ffi::Module library = ffi::Module::LoadFromFile(path);
  auto machine = library->GetFunction("vm_load_executable").value()().cast<ffi::Module>();
  machine->GetFunction("vm_initialization").value()(static_cast<int>(kDLCPU), 0, kPooledAllocator);
  return machine;
}

// An image of three channels; its side follows from the file's size.
ffi::Tensor ReadInput(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::vector<char> bytes((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  auto side = static_cast<int64_t>(std::lround(std::sqrt(static_cast<double>(bytes.size()) / sizeof(float) / 3)));
  if (!file || side == 0 || bytes.size() != static_cast<size_t>(side * side) * 3 * sizeof(float))
    throw std::runtime_error(path + " does not hold the float32 of a square image with three channels");
  auto image = ffi::Tensor::FromNDAlloc(OnHeap(), {1, 3, side, side}, DLDataType{kDLFloat, 32, 1}, DLDevice{kDLCPU, 0});
  std::copy(bytes.begin(), bytes.end(), static_cast<char*>(image.data_ptr()));
  return image;
}

double Milliseconds(const ffi::Function& network, const ffi::Tensor& image, std::vector<float>* logits) {
  auto begin = std::chrono::steady_clock::now();
  auto output = network(image).cast<ffi::Tensor>();
  std::chrono::duration<double, std::milli> elapsed = std::chrono::steady_clock::now() - begin;
  const auto* values = static_cast<const float*>(output.data_ptr());
  logits->assign(values, values + output.numel());
  return elapsed.count();
}

void PrintMostLikely(const std::vector<float>& logits) {
  std::vector<int> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  auto shown = std::min<size_t>(kShown, order.size());
  std::partial_sort(order.begin(), order.begin() + static_cast<std::ptrdiff_t>(shown), order.end(),
                    [&](int a, int b) { return logits[a] > logits[b]; });
  double sum = 0;
  for (float value : logits) sum += std::exp(static_cast<double>(value) - logits[order[0]]);
  for (size_t i = 0; i < shown; ++i)
    std::printf("class %d: %.2f %%\n", order[i], 100 * std::exp(static_cast<double>(logits[order[i]]) - logits[order[0]]) / sum);
}

int main(int argc, char** argv) try {
  if (argc < 3 || argc > 4) {
    std::fprintf(stderr, "usage: %s LIBRARY.so INPUT.f32 [OUTPUT.f32]\n", argv[0]);
    return 1;
  }
  ffi::Tensor image = ReadInput(argv[2]);
  ffi::Module machine = LoadNetwork(argv[1]);
  ffi::Function network = machine->GetFunction("main").value();
  std::vector<float> logits;
  double first = Milliseconds(network, image, &logits);
  std::vector<double> times;
  for (int run = 0; run < kRuns; ++run) times.push_back(Milliseconds(network, image, &logits));
  std::nth_element(times.begin(), times.begin() + kRuns / 2, times.end());
  PrintMostLikely(logits);
  std::printf("first run %.3f ms, then %.3f ms (median of %d), by this machine's clock\n", first, times[kRuns / 2], kRuns);
  if (argc == 4) {
    std::ofstream file(argv[3], std::ios::binary);
    file.write(reinterpret_cast<const char*>(logits.data()), static_cast<std::streamsize>(logits.size() * sizeof(float)));
    if (!file.flush()) throw std::runtime_error(std::string(argv[3]) + " cannot be written");
  }
  return 0;
} catch (const std::exception& error) {  // what TVM throws is one of them too
  std::fprintf(stderr, "classify: %s\n", error.what());
  return 1;
}
