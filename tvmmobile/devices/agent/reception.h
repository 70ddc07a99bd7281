// Strangers and clients at the agent's port: whoever connects must prove to know the run's secret, after the agent has.
//
// A client sends [magic i32][nonce]; the agent answers [nonce][proof]; the client sends [session's limit in ms, u64][proof]; the agent answers
// with TVM's magic number, or one more than it for an offer that is not valid any more. All are served at the same time, so that one who
// says nothing keeps nobody waiting.
#pragma once

#include <poll.h>

#include <algorithm>
#include <list>
#include <string>
#include <vector>

#include "net.h"
#include "proof.h"

namespace agent {

constexpr int32_t kAgentMagic = 0x746D6101;
constexpr int32_t kRpcMagic = 0xFF271;
constexpr int32_t kMismatch = kRpcMagic + 2;
constexpr size_t kMostVisitors = 64;  // of more, the one that came first is turned away
constexpr double kProofSeconds = 5;

struct Hello {
  int32_t magic;
  Digest nonce;
};

struct __attribute__((packed)) Claim {
  uint64_t timeout_ms;
  Digest proof;
};

class Reception {
 public:
  Reception(int listener, const Digest& secret) : listener_(listener), secret_(secret) {}

  // What to wait for; `Receive` needs as many, in this order, with what came.
  void WaitFor(std::vector<pollfd>* waits) const {
    waits->push_back({listener_, POLLIN, 0});
    for (const Visitor& visitor : visitors_) waits->push_back({visitor.fd, POLLIN, 0});
  }

  // Hears everybody; the connection of a client who has proved itself, with its limit in seconds, else -1. Others wait on.
  int Receive(const pollfd* ready, const std::string& offer, double now, double* timeout) {
    int client = -1;
    const pollfd* next = ready + 1;
    for (auto visitor = visitors_.begin(); visitor != visitors_.end(); ++next) {
      Heard heard = now > visitor->until ? kLeaves : next->revents == 0 || client >= 0 ? kStays : Hear(&*visitor, offer, timeout);
      if (heard == kServed) client = visitor->fd;
      if (heard == kLeaves) close(visitor->fd);
      visitor = heard == kStays ? std::next(visitor) : visitors_.erase(visitor);
    }
    if (ready->revents != 0) Admit(now);
    return client;
  }

  void CloseAll() const {
    for (const Visitor& visitor : visitors_) close(visitor.fd);
  }

 private:
  struct Visitor {
    int fd;
    double until;
    std::string offer;  // that it was greeted with; empty before
    Digest ours{}, theirs{};
    size_t received = 0;
    unsigned char bytes[std::max(sizeof(Hello), sizeof(Claim))];
  };
  enum Heard { kStays, kLeaves, kServed };

  void Admit(double now) {
    int fd = accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) return;
    SendAtOnce(fd);
    visitors_.push_back({});
    visitors_.back().fd = fd;
    visitors_.back().until = now + kProofSeconds;
    if (visitors_.size() <= kMostVisitors) return;
    close(visitors_.front().fd);
    visitors_.pop_front();
  }

  Heard Hear(Visitor* visitor, const std::string& offer, double* timeout) {
    size_t size = visitor->offer.empty() ? sizeof(Hello) : sizeof(Claim);
    ssize_t n = recv(visitor->fd, visitor->bytes + visitor->received, size - visitor->received, 0);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) return kStays;
    if (n <= 0) return kLeaves;
    visitor->received += static_cast<size_t>(n);
    if (visitor->received < size) return kStays;
    visitor->received = 0;
    return visitor->offer.empty() ? Greet(visitor, offer) : Check(*visitor, offer, timeout);
  }

  Heard Greet(Visitor* visitor, const std::string& offer) {
    Hello hello;
    memcpy(&hello, visitor->bytes, sizeof(hello));
    if (hello.magic != kAgentMagic) return kLeaves;
    visitor->offer = offer;
    visitor->theirs = hello.nonce;
    visitor->ours = Nonce();
    Digest proof = Proof(secret_, "agent", {offer, View(visitor->theirs), View(visitor->ours)});
    return SendAll(visitor->fd, std::string(View(visitor->ours)) + std::string(View(proof))) ? kStays : kLeaves;
  }

  Heard Check(const Visitor& visitor, const std::string& offer, double* timeout) {
    Claim claim;
    memcpy(&claim, visitor.bytes, sizeof(claim));
    std::string_view limit(reinterpret_cast<const char*>(&claim.timeout_ms), sizeof(claim.timeout_ms));
    Digest expected = Proof(secret_, "client", {visitor.offer, View(visitor.theirs), View(visitor.ours), limit});
    if (!Same(claim.proof, expected)) return kLeaves;
    bool valid = visitor.offer == offer && claim.timeout_ms > 0;
    if (!SendAll(visitor.fd, Int32(valid ? kRpcMagic : kMismatch)) || !valid) return kLeaves;
    fcntl(visitor.fd, F_SETFL, fcntl(visitor.fd, F_GETFL) & ~O_NONBLOCK);
    *timeout = static_cast<double>(claim.timeout_ms) * 1e-3;
    return kServed;
  }

  int listener_;
  const Digest& secret_;
  std::list<Visitor> visitors_;
};

}  // namespace agent
