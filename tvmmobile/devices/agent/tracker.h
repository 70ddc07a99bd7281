// The agent's side of TVM's RPC tracker protocol (tvm/rpc/tracker.py): register, offer a match key, ask whether it is still on offer.
#pragma once

#include <netdb.h>
#include <sys/random.h>

#include <cstdio>
#include <stdexcept>
#include <string>

#include "net.h"

namespace agent {

constexpr int32_t kTrackerMagic = 0x2F271;
enum TrackerCode { kPut = 3, kUpdateInfo = 5, kPendingMatchKeys = 7 };
constexpr double kTrackerDeadlineSeconds = 5;

inline std::string RandomDigits() {
  uint64_t bits = 0;
  if (getrandom(&bits, sizeof(bits), 0) != sizeof(bits)) throw std::runtime_error("no random numbers");
  return std::to_string(bits);
}

// A value inside a JSON string; keys and hosts are plain words, so quotes and backslashes are refused, not escaped.
inline std::string Quoted(const std::string& text) {
  for (char c : text) {
    bool plain = c != '"' && c != '\\' && static_cast<unsigned char>(c) >= 0x20;
    if (!plain) throw std::runtime_error("a key or host has a character that is not allowed");
  }
  return "\"" + text + "\"";
}

class Tracker {
 public:
  Tracker(const std::string& host, int port, std::string key, std::string own_host, int own_port)
      : key_(std::move(key)), own_host_(std::move(own_host)), own_port_(own_port) {
    addrinfo hints{};
    hints.ai_family = AF_INET;
    hints.ai_socktype = SOCK_STREAM;
    addrinfo* found = nullptr;
    if (getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &found) != 0 || found == nullptr)
      throw std::runtime_error("unknown tracker host " + host);
    fd_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int failed = connect(fd_, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    if (failed != 0) throw std::runtime_error("cannot connect to the tracker at " + host + ":" + std::to_string(port));
    SendAtOnce(fd_);
    SetDeadline(fd_, kTrackerDeadlineSeconds);
    int32_t magic = 0;
    if (!SendAll(fd_, Int32(kTrackerMagic)) || !ReceiveAll(fd_, &magic, sizeof(magic)) || magic != kTrackerMagic)
      throw std::runtime_error("no TVM tracker at " + host + ":" + std::to_string(port));
    Ask("[" + std::to_string(kUpdateInfo) + ",{\"key\":" + Quoted("server:" + key_) + ",\"addr\":[" + Quoted(own_host_) + "," +
        std::to_string(own_port_) + "]}]");
  }

  int fd() const { return fd_; }
  const std::string& match_key() const { return match_key_; }

  // Offers this agent to one client, who must present the fresh match key.
  void Offer() {
    match_key_ = key_ + ":" + RandomDigits();
    Ask("[" + std::to_string(kPut) + "," + Quoted(key_) + ",[" + std::to_string(own_port_) + "," + Quoted(match_key_) + "]," +
        Quoted(own_host_) + "]");
  }

  // Whether nobody has taken the offer yet.
  bool StillOffered() { return Ask("[" + std::to_string(kPendingMatchKeys) + "]").find(match_key_) != std::string::npos; }

 private:
  std::string Ask(const std::string& json) {
    int32_t size = 0;
    bool asked = SendAll(fd_, Int32(static_cast<int32_t>(json.size())) + json);
    if (!asked || !ReceiveAll(fd_, &size, sizeof(size)) || size < 0 || size > (1 << 20))
      throw std::runtime_error("the tracker is gone");
    std::string answer(static_cast<size_t>(size), '\0');
    if (!ReceiveAll(fd_, answer.data(), answer.size())) throw std::runtime_error("the tracker is gone");
    return answer;
  }

  std::string key_, own_host_, match_key_;
  int own_port_;
  int fd_ = -1;
};

}  // namespace agent
