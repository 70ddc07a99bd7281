// The agent's side of the tracker (agents/tracker.py): register, make an offer, ask whether it still stands. Both ends prove to know the run's
// secret; after that every message has a tag, so that nobody in between changes, repeats or adds one.
#pragma once

#include <netdb.h>

#include <cstdio>
#include <stdexcept>
#include <string>

#include "net.h"
#include "proof.h"

namespace agent {

constexpr int32_t kTrackerMagic = 0x746D7401;
enum TrackerCode { kPut = 3, kUpdateInfo = 5, kPendingMatchKeys = 7 };
constexpr double kTrackerDeadlineSeconds = 5;

inline std::string Hexadecimal(const Digest& digest) {
  std::string text;
  for (unsigned char byte : digest) {
    text += "0123456789abcdef"[byte >> 4];
    text += "0123456789abcdef"[byte & 15];
  }
  return text;
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
  // The secret must outlive the tracker.
  Tracker(const std::string& host, int port, const Digest& secret, std::string key, std::string own_host, int own_port)
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
    Greet(secret, host + ":" + std::to_string(port));
    Ask("[" + std::to_string(kUpdateInfo) + ",{\"key\":" + Quoted("server:" + key_) + ",\"addr\":[" + Quoted(own_host_) + "," +
        std::to_string(own_port_) + "]}]");
  }

  int fd() const { return fd_; }
  const std::string& offer() const { return offer_; }

  // Offers this agent to one client, whose proof is over the fresh offer.
  void Offer() {
    offer_ = key_ + ":" + Hexadecimal(Nonce());
    Ask("[" + std::to_string(kPut) + "," + Quoted(key_) + ",[" + std::to_string(own_port_) + "," + Quoted(offer_) + "]," +
        Quoted(own_host_) + "]");
  }

  // Whether nobody has taken the offer yet.
  bool StillOffered() { return Ask("[" + std::to_string(kPendingMatchKeys) + "]").find(offer_) != std::string::npos; }

 private:
  void Greet(const Digest& secret, const std::string& place) {
    Digest ours = Nonce(), theirs, proof;
    int32_t magic = 0;
    if (!SendAll(fd_, Int32(kTrackerMagic) + std::string(View(ours))) || !ReceiveAll(fd_, &magic, sizeof(magic)) ||
        magic != kTrackerMagic || !ReceiveAll(fd_, theirs.data(), theirs.size()) || !ReceiveAll(fd_, proof.data(), proof.size()))
      throw std::runtime_error("no tracker at " + place);
    if (!Same(proof, Proof(secret, "tracker", {View(ours), View(theirs)})))
      throw std::runtime_error("the tracker at " + place + " did not prove that it belongs to this run");
    seal_ = Proof(secret, "tracker messages", {View(ours), View(theirs)});
  }

  Digest Tag(std::string_view direction, uint64_t number, std::string_view content) const {
    return Proof(seal_, direction, {std::string_view(reinterpret_cast<const char*>(&number), sizeof(number)), content});
  }

  std::string Ask(const std::string& json) {
    int32_t size = static_cast<int32_t>(kDigestBytes + json.size());
    ++messages_;  // each has one answer
    bool asked = SendAll(fd_, Int32(size) + std::string(View(Tag("to tracker", messages_, json))) + json);
    Digest tag;
    if (!asked || !ReceiveAll(fd_, &size, sizeof(size)) || size < static_cast<int32_t>(kDigestBytes) || size > (1 << 20) ||
        !ReceiveAll(fd_, tag.data(), tag.size()))
      throw std::runtime_error("the tracker is gone");
    std::string answer(static_cast<size_t>(size) - tag.size(), '\0');
    if (!ReceiveAll(fd_, answer.data(), answer.size())) throw std::runtime_error("the tracker is gone");
    if (!Same(tag, Tag("from tracker", messages_, answer))) throw std::runtime_error("an answer of the tracker has a wrong tag");
    return answer;
  }

  std::string key_, own_host_, offer_;
  Digest seal_{};
  uint64_t messages_ = 0;
  int own_port_;
  int fd_ = -1;
};

}  // namespace agent
