// The agent's session stream (agent/stream.h) under sanitizers, without sockets: reads sessions from standard input, each as
// [bytes u32][content], serves each as TVM's server loop would, and answers with a summary of what TVM and the frames got.
//
// Addresses in bulk frames are the client's own affair on a board, where a session may do what it likes in its own process. Here one piece of
// memory stands for a client's tensors, and other addresses are refused as the kernel refuses unmapped ones; whatever else the stream hands
// to recv and send must be memory that it owns.
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sanitizer/asan_interface.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <string>

namespace fuzz {

constexpr uint64_t kTensors = 0x123456780000, kTensorBytes = 1 << 20, kPage = 4096;
constexpr uint64_t kShadowEnd = 0x100080000000;  // of the sanitizer's own memory, below which the program has nothing
constexpr uint32_t kMostBytes = 1 << 24;
std::string input;     // of the session
size_t place = 0;      // up to where it has been received
uint32_t pieces = 1;   // how the network cuts it: the next piece's size follows from the last
uint64_t answered = 0;  // bytes sent to the client, and a checksum of them
uint32_t checksum = 0;

bool Owned(const void* bytes, size_t size) {
  uint64_t begin = reinterpret_cast<uint64_t>(bytes), last = begin + size - 1;
  if (begin >= kTensors && begin - kTensors < kTensorBytes) return size <= kTensorBytes - (begin - kTensors);
  if (begin < kShadowEnd) return false;
  for (uint64_t at : {begin, last}) {
    unsigned char there;
    if (mincore(reinterpret_cast<void*>(at / kPage * kPage), 1, &there) != 0) return false;
  }
  if (void* bad = __asan_region_is_poisoned(const_cast<void*>(bytes), size)) {
    fprintf(stderr, "the stream handed %zu bytes at %p to the kernel, of which %p is not its own\n", size, bytes, bad);
    abort();
  }
  return true;
}

ssize_t Recv(int, void* bytes, size_t size, int) {
  pieces = pieces * 1664525 + 1013904223;
  if ((pieces >> 16) % 16 == 0) {
    errno = EINTR;
    return -1;
  }
  size_t part = std::min({size, input.size() - place, static_cast<size_t>(1 + (pieces >> 20) % 700)});
  if (part > 0 && !Owned(bytes, part)) {
    errno = EFAULT;
    return -1;
  }
  memcpy(bytes, input.data() + place, part);
  place += part;
  return static_cast<ssize_t>(part);
}

ssize_t Send(int, const void* bytes, size_t size, int) {
  if (size > 0 && !Owned(bytes, size)) {
    errno = EFAULT;
    return -1;
  }
  for (size_t i = 0; i < size; ++i) checksum = checksum * 31 + static_cast<const unsigned char*>(bytes)[i];
  answered += size;
  return static_cast<ssize_t>(size);
}

}  // namespace fuzz

#define recv fuzz::Recv
#define send fuzz::Send
#include "stream.h"
#undef recv
#undef send

// What TVM's loop does with a stream: asks for a length, then for so many bytes, at most so many at a time.
uint64_t ServePackets(agent::SessionStream* stream) {
  uint64_t packets = 0;
  auto whole = [stream](uint64_t size, uint64_t* value) {
    std::string bytes;
    for (uint64_t left = size; left > 0;) {
      std::string part = stream->Receive(std::min<uint64_t>(left, 1 << 16));
      if (part.empty()) return false;
      if (part.size() > left) throw std::logic_error("more than was asked for");
      left -= part.size();
      if (bytes.size() < 8) bytes += part;
    }
    if (value != nullptr) memcpy(value, bytes.data(), sizeof(*value));
    return true;
  };
  uint64_t length = 0;
  while (whole(sizeof(length), &length) && whole(length, nullptr)) ++packets;
  return packets;
}

bool ReadWhole(void* bytes, size_t size) { return fread(bytes, 1, size, stdin) == size; }

int main(int argc, char**) {
  if (argc > 1) fuzz::Send(-1, std::string(100, 'x').data(), 102, 0);  // what the sanitizers must see: one byte too many
  void* tensors = reinterpret_cast<void*>(fuzz::kTensors);
  if (mmap(tensors, fuzz::kTensorBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != tensors) return 3;
  for (uint32_t size = 0; ReadWhole(&size, sizeof(size)) && size <= fuzz::kMostBytes;) {
    fuzz::input.assign(size, '\0');
    if (!ReadWhole(fuzz::input.data(), size)) return 4;
    fuzz::place = fuzz::answered = 0;
    fuzz::pieces = size;
    fuzz::checksum = 0;
    memset(tensors, 0, 1 << 14);
    uint64_t packets = 0;
    try {
      agent::SessionStream stream(-1, ".");
      packets = ServePackets(&stream);
    } catch (const std::bad_alloc&) {  // the agent ends such a session
      packets = UINT64_MAX;
    }
    printf("%llu %llu %u\n", static_cast<unsigned long long>(packets), static_cast<unsigned long long>(fuzz::answered), fuzz::checksum);
    fflush(stdout);
  }
  return 0;
}
