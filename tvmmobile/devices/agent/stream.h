// A session's byte stream: TVM's packets and, between them, this project's bulk frames.
//
// TVM 0.27 moves every byte of an array through two virtual calls (support/io.h, ReadArray), 140 ns a byte under QEMU and most of a
// measurement's time. So arrays and files come past it: where a packet's length would be, a frame starts with a number that is no length.
// A frame is [magic u64][operation u32][name bytes u32][address u64][size u64][name][payload], little-endian; the answer is the payload for
// kRead and the size as u64 otherwise; the complement of the error's number if a file cannot be written (of 0, in older agents). Plain TVM clients never send one.
#pragma once

#include <fcntl.h>

#include <algorithm>
#include <filesystem>
#include <string>

#include "net.h"

namespace agent {

constexpr uint64_t kBulkMagic = 0xf6'74'76'6d'62'75'6c'6bULL;
enum BulkOperation : uint32_t { kWrite = 1, kRead = 2, kFile = 3 };
constexpr uint32_t kMaxNameBytes = 255;

struct BulkHeader {
  uint32_t operation, name_bytes;
  uint64_t address, size;
};

class SessionStream {
 public:
  SessionStream(int fd, std::string directory) : fd_(fd), directory_(std::move(directory)) {}

  // At most `size` bytes for TVM; none at the end of the stream. Bulk frames that come first are served on the way.
  std::string Receive(size_t size) {
    while (packet_left_ == 0) {
      uint64_t length = 0;
      if (!ReceiveAll(fd_, &length, sizeof(length))) return "";
      if (length == kBulkMagic) {
        if (!ServeFrame()) return "";
        continue;
      }
      pending_.assign(reinterpret_cast<const char*>(&length), sizeof(length));
      packet_left_ = length + sizeof(length);
    }
    size = std::min<uint64_t>(size, packet_left_);
    std::string bytes;
    if (!pending_.empty()) {
      bytes = pending_.substr(0, size);
      pending_.erase(0, bytes.size());
    } else {
      // All of it, in however many pieces it comes: how the network cuts a packet must not show in what is allocated here.
      bytes.resize(size);
      if (!ReceiveAll(fd_, bytes.data(), size)) return "";
    }
    packet_left_ -= bytes.size();
    return bytes;
  }

  int64_t Send(const char* bytes, size_t size) {
    ssize_t n;
    do n = send(fd_, bytes, size, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n;
  }

 private:
  bool ServeFrame() {
    BulkHeader header{};
    if (!ReceiveAll(fd_, &header, sizeof(header)) || header.name_bytes > kMaxNameBytes) return false;
    std::string name(header.name_bytes, '\0');
    if (!ReceiveAll(fd_, name.data(), name.size())) return false;
    char* memory = reinterpret_cast<char*>(header.address);
    switch (header.operation) {
      case kWrite:
        return ReceiveAll(fd_, memory, header.size) && Answer(header.size);
      case kRead:
        for (uint64_t sent = 0; sent < header.size;) {
          int64_t n = Send(memory + sent, header.size - sent);
          if (n <= 0) return false;
          sent += static_cast<uint64_t>(n);
        }
        return true;
      case kFile:
        return ReceiveFile(directory_ + "/" + std::filesystem::path(name).filename().string(), header.size);
      default:
        return false;
    }
  }

  bool ReceiveFile(const std::string& path, uint64_t size) {
    int file = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0700);
    int problem = file < 0 ? errno : 0;
    char chunk[1 << 16];
    for (uint64_t left = size; left > 0;) {
      size_t part = std::min<uint64_t>(left, sizeof(chunk));
      if (!ReceiveAll(fd_, chunk, part)) return false;
      if (problem == 0) problem = WriteAll(file, chunk, part);
      left -= part;
    }
    if (file >= 0) close(file);
    return Answer(problem == 0 ? size : ~static_cast<uint64_t>(problem));
  }

  // The error's number; 0 for none.
  static int WriteAll(int file, const char* bytes, size_t size) {
    while (size > 0) {
      ssize_t n = write(file, bytes, size);
      if (n < 0 && errno == EINTR) continue;
      if (n <= 0) return n < 0 ? errno : EIO;
      bytes += n;
      size -= static_cast<size_t>(n);
    }
    return 0;
  }

  bool Answer(uint64_t size) { return SendAll(fd_, std::string(reinterpret_cast<const char*>(&size), sizeof(size))); }

  int fd_;
  std::string directory_;
  uint64_t packet_left_ = 0;  // of the packet TVM is reading, its length included
  std::string pending_;       // of the length, what TVM has not asked for yet
};

}  // namespace agent
