// Small socket helpers: whole reads and writes with a deadline, and TCP options.
#pragma once

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <string>

namespace agent {

// Nagle's algorithm and delayed acknowledgements cost 40 ms each on messages as small as TVM's.
inline void SendAtOnce(int fd) {
  int one = 1;
  setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &one, sizeof(one));
}

// Limits how long one receive or send may block; 0 means for ever.
inline void SetDeadline(int fd, double seconds) {
  timeval limit{};
  limit.tv_sec = static_cast<time_t>(seconds);
  limit.tv_usec = static_cast<suseconds_t>((seconds - static_cast<double>(limit.tv_sec)) * 1e6);
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
  setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
}

inline bool SendAll(int fd, const std::string& bytes) {
  size_t sent = 0;
  while (sent < bytes.size()) {
    ssize_t n = send(fd, bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    sent += static_cast<size_t>(n);
  }
  return true;
}

inline bool ReceiveAll(int fd, void* bytes, size_t size) {
  size_t received = 0;
  while (received < size) {
    ssize_t n = recv(fd, static_cast<char*>(bytes) + received, size - received, 0);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    received += static_cast<size_t>(n);
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_QUICKACK, &one, sizeof(one));  // the kernel forgets this option
  }
  return true;
}

// TVM's wire integers are little-endian, as AArch64 is.
inline std::string Int32(int32_t value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof(value));
}

}  // namespace agent
