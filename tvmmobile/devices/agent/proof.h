// Proof that a process belongs to a run, with a secret that only the run's own processes have (agents/proof.py is the other side).
#pragma once

#include <sys/random.h>
#include <unistd.h>

#include <cerrno>
#include <initializer_list>
#include <stdexcept>
#include <string_view>

#include "sha256.h"

namespace agent {

inline std::string_view View(const Digest& digest) { return {reinterpret_cast<const char*>(digest.data()), digest.size()}; }

// HMAC over a purpose and parts, each preceded by its length (32 bits, little-endian, as AArch64 is).
inline Digest Proof(const Digest& key, std::string_view purpose, std::initializer_list<std::string_view> parts) {
  HmacSha256 code(key.data(), key.size());
  auto add = [&code](std::string_view part) {
    uint32_t size = static_cast<uint32_t>(part.size());
    code.Add(&size, sizeof(size)).Add(part.data(), part.size());
  };
  add(purpose);
  for (std::string_view part : parts) add(part);
  return code.Finish();
}

// Compares in the same time wherever the first difference is.
inline bool Same(const Digest& a, const Digest& b) {
  volatile unsigned char difference = 0;
  for (size_t i = 0; i < a.size(); ++i) difference = difference | static_cast<unsigned char>(a[i] ^ b[i]);
  return difference == 0;
}

inline Digest Nonce() {
  Digest nonce;
  if (getrandom(nonce.data(), nonce.size(), 0) != static_cast<ssize_t>(nonce.size())) throw std::runtime_error("no random numbers");
  return nonce;
}

// Reads a secret, a line of 64 hexadecimal digits, from standard input, and nothing beyond it.
inline Digest ReadSecret() {
  Digest secret{};
  for (size_t i = 0; i <= 2 * secret.size(); ++i) {
    char c = 0;
    ssize_t n;
    do n = read(STDIN_FILENO, &c, 1);
    while (n < 0 && errno == EINTR);
    int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
    if (n == 1 && c == '\n' && i == 2 * secret.size()) return secret;
    if (n != 1 || digit < 0 || i == 2 * secret.size()) break;
    secret[i / 2] = static_cast<unsigned char>(secret[i / 2] << 4 | digit);
  }
  throw std::runtime_error("the run's secret did not come over standard input");
}

}  // namespace agent
