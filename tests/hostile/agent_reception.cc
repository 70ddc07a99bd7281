// The agent's reception (agent/reception.h) under sanitizers, without sockets: strangers and clients at its port, in scripts.
//
// Reads scripts from standard input, each as [bytes u32][content]; a script is steps of [what u8][visitor u8][bytes u8][content]. Some
// visitors are true clients, who know the secret: their greeting and their claim are worked out here, and a script says what of them is
// changed. A connection that is served although no true claim came over it ends the program. Answers with how many visitors were served,
// how many true claims came in time, and how many were turned away.
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <string>
#include <vector>

namespace fuzz {

constexpr int kListener = 1000, kFirst = 1001;
constexpr uint32_t kMostBytes = 1 << 24;

struct Connection {
  std::string arrived, sent, offer;  // the offer as its greeting was sent
  std::string all;                   // that ever arrived
  bool closed_there = false, closed_here = false;
  bool greeted = false, proved = false;  // a true greeting, and then a true claim, were the first that came
};
std::map<int, Connection> connections;
std::deque<int> waiting;  // to be accepted
uint32_t drawn = 1;

int Accept4(int, sockaddr*, socklen_t*, int) {
  if (waiting.empty()) {
    errno = EAGAIN;
    return -1;
  }
  int fd = waiting.front();
  waiting.pop_front();
  return fd;
}

ssize_t Recv(int fd, void* bytes, size_t size, int) {
  Connection& one = connections.at(fd);
  drawn = drawn * 1664525 + 1013904223;
  if (one.arrived.empty() || (drawn >> 16) % 16 == 0) {
    if (one.arrived.empty() && one.closed_there) return 0;
    errno = one.arrived.empty() ? EAGAIN : EINTR;
    return -1;
  }
  size_t part = std::min({size, one.arrived.size(), static_cast<size_t>(1 + (drawn >> 20) % 80)});
  memcpy(bytes, one.arrived.data(), part);
  one.arrived.erase(0, part);
  return static_cast<ssize_t>(part);
}

ssize_t Send(int fd, const void* bytes, size_t size, int) {
  Connection& one = connections.at(fd);
  if (one.closed_here) abort();
  if (one.closed_there) {
    errno = EPIPE;
    return -1;
  }
  one.sent.append(static_cast<const char*>(bytes), size);
  return static_cast<ssize_t>(size);
}

int Close(int fd) {
  Connection& one = connections.at(fd);
  if (one.closed_here) abort();
  one.closed_here = true;
  return 0;
}

ssize_t GetRandom(void* bytes, size_t size, unsigned) {
  for (size_t i = 0; i < size; ++i) {
    drawn = drawn * 1664525 + 1013904223;
    static_cast<unsigned char*>(bytes)[i] = static_cast<unsigned char>(drawn >> 24);
  }
  return static_cast<ssize_t>(size);
}

}  // namespace fuzz

#define accept4 fuzz::Accept4
#define recv fuzz::Recv
#define send fuzz::Send
#define close fuzz::Close
#define getrandom fuzz::GetRandom
#include "reception.h"
#undef accept4
#undef recv
#undef send
#undef close
#undef getrandom

namespace fuzz {

enum Step : unsigned char { kArrives, kConnects, kHello, kClaim, kEnds, kTimePasses, kNewOffer, kSteps };

class Script {
 public:
  Script() : reception_(kListener, secret_) { secret_.fill(7); }

  void Run(const std::string& steps) {
    for (size_t at = 0; at + 3 <= steps.size();) {
      unsigned char what = static_cast<unsigned char>(steps[at]) % kSteps, visitor = static_cast<unsigned char>(steps[at + 1]);
      std::string content = steps.substr(at + 3, static_cast<unsigned char>(steps[at + 2]));
      at += 3 + content.size();
      Take(static_cast<Step>(what), kFirst + visitor, content);
      Turn();
    }
    for (int i = 0; i < 4; ++i) Turn();
    reception_.CloseAll();
  }

  int served = 0, claimed = 0;

 private:
  void Take(Step what, int fd, const std::string& content) {
    Connection& one = connections[fd];
    bool known = one.closed_there || one.closed_here;
    switch (what) {
      case kConnects:
        if (!known && std::find(waiting.begin(), waiting.end(), fd) == waiting.end() && connected_.insert({fd, true}).second)
          waiting.push_back(fd);
        break;
      case kArrives:
        if (!one.proved && !content.empty()) one.greeted = false;
        Arrives(&one, content);
        break;
      case kHello:
        Hello(&one, content);
        break;
      case kClaim:
        Claim(&one, content);
        break;
      case kEnds:
        one.closed_there = true;
        break;
      case kTimePasses:
        now_ += content.empty() ? 1 : static_cast<unsigned char>(content[0]);
        break;
      default:
        offer_ = "pi4:" + content;
    }
  }

  static void Arrives(Connection* one, const std::string& bytes) {
    one->arrived += bytes;
    one->all += bytes;
  }

  // Whether what came over a connection is a greeting and a right claim, however it came: two halves of claims can make a whole one.
  bool Proved(const Connection& one, double timeout) const {
    constexpr size_t greeting = sizeof(agent::Hello), claim = sizeof(agent::Claim);
    if (one.all.size() < greeting + claim || one.sent.size() < 64 || one.offer != offer_) return false;
    std::string limit = one.all.substr(greeting, 8), theirs = one.all.substr(greeting - 32, 32);
    agent::Digest proof = agent::Proof(secret_, "client", {one.offer, theirs, one.sent.substr(0, 32), limit});
    uint64_t timeout_ms;
    memcpy(&timeout_ms, limit.data(), sizeof(timeout_ms));
    return one.all.substr(greeting + 8, 32) == agent::View(proof) && timeout == static_cast<double>(timeout_ms) * 1e-3;
  }

  void Hello(Connection* one, const std::string& content) {
    std::string hello = agent::Int32(agent::kAgentMagic) + std::string(32, 'c'), said = Changed(hello, content);
    if (said.empty()) return;
    if (one->sent.empty()) one->offer = offer_;
    if (!one->proved) one->greeted = said == hello && one->sent.empty() && one->arrived.empty();
    Arrives(one, said);
  }

  // A true claim, as long as the script does not change it: a limit, and a proof over the agent's answer.
  void Claim(Connection* one, const std::string& content) {
    for (int i = 0; i < 8 && one->sent.size() < 64; ++i) Turn();
    if (one->sent.size() != 64) return;
    std::string limit = agent::Int32(60000) + agent::Int32(0), ours = one->sent.substr(0, 32);
    agent::Digest proof = agent::Proof(secret_, "client", {one->offer, std::string(32, 'c'), ours, limit});
    std::string claim = limit + std::string(agent::View(proof));
    std::string said = Changed(claim, content);
    if (said.empty()) return;
    bool is_true = one->greeted && !one->proved && said == claim && one->arrived.empty();
    one->proved |= is_true;
    claimed += is_true;
    if (!is_true && !one->proved) one->greeted = false;
    Arrives(one, said);
  }

  // `text` with one byte changed, where the script says so.
  static std::string Changed(std::string text, const std::string& how) {
    if (how.size() >= 2) text[static_cast<unsigned char>(how[0]) % text.size()] ^= how[1];
    if (how.size() == 3) text.resize(static_cast<unsigned char>(how[2]) % (text.size() + 1));
    return text;
  }

  void Turn() {
    std::vector<pollfd> waits;
    reception_.WaitFor(&waits);
    for (pollfd& wait : waits) {
      if (wait.fd == kListener) {
        wait.revents = waiting.empty() ? 0 : POLLIN;
      } else {
        const Connection& one = connections.at(wait.fd);
        if (one.closed_here) abort();
        wait.revents = one.arrived.empty() && !one.closed_there ? 0 : POLLIN;
      }
    }
    double timeout = -1;
    int fd = reception_.Receive(waits.data(), offer_, now_, &timeout);
    if (fd < 0) return;
    if (!Proved(connections.at(fd), timeout)) {
      fprintf(stderr, "a visitor was served for %g s who had proved nothing\n", timeout);
      abort();
    }
    ++served;
    Close(fd);
  }

  agent::Digest secret_;
  agent::Reception reception_;
  std::string offer_ = "pi4:0a1b";
  std::map<int, bool> connected_;
  double now_ = 0;
};

}  // namespace fuzz

bool ReadWhole(void* bytes, size_t size) { return fread(bytes, 1, size, stdin) == size; }

int main() {
  for (uint32_t size = 0; ReadWhole(&size, sizeof(size)) && size <= fuzz::kMostBytes;) {
    std::string steps(size, '\0');
    if (!ReadWhole(steps.data(), size)) return 4;
    fuzz::connections.clear();
    fuzz::waiting.clear();
    fuzz::drawn = size + 1;
    fuzz::Script script;
    script.Run(steps);
    int away = 0;
    for (const auto& [fd, one] : fuzz::connections) away += one.closed_here;
    printf("%d %d %d\n", script.served, script.claimed, away - script.served);
    fflush(stdout);
  }
  return 0;
}
