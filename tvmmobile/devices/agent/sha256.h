// SHA-256 (FIPS 180-4) and HMAC-SHA256 (RFC 2104), without the heap.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace agent {

constexpr size_t kDigestBytes = 32;
using Digest = std::array<unsigned char, kDigestBytes>;

class Sha256 {
 public:
  static constexpr size_t kBlockBytes = 64;

  Sha256& Add(const void* bytes, size_t size) {
    const unsigned char* next = static_cast<const unsigned char*>(bytes);
    for (size_ += size; size > 0; --size) {
      block_[filled_++] = *next++;
      if (filled_ == kBlockBytes) Compress();
    }
    return *this;
  }

  // The digest of all that was added; nothing may be added after this.
  Digest Finish() {
    uint64_t bits = size_ * 8;
    unsigned char mark = 0x80, zero = 0, length[8];
    for (int i = 0; i < 8; ++i) length[i] = static_cast<unsigned char>(bits >> (56 - 8 * i));
    Add(&mark, 1);
    while (filled_ != kBlockBytes - sizeof(length)) Add(&zero, 1);
    Add(length, sizeof(length));
    Digest digest;
    for (size_t i = 0; i < kDigestBytes; ++i) digest[i] = static_cast<unsigned char>(state_[i / 4] >> (24 - 8 * (i % 4)));
    return digest;
  }

 private:
  static uint32_t Rotated(uint32_t x, int n) { return (x >> n) | (x << (32 - n)); }

  void Compress() {
    static constexpr uint32_t kRound[64] = {
        0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01, 0x243185be,
        0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa,
        0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967, 0x27b70a85,
        0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85, 0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3,
        0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f,
        0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};
    uint32_t w[64], s[8];
    for (int i = 0; i < 16; ++i)
      w[i] = static_cast<uint32_t>(block_[4 * i]) << 24 | static_cast<uint32_t>(block_[4 * i + 1]) << 16 |
             static_cast<uint32_t>(block_[4 * i + 2]) << 8 | block_[4 * i + 3];
    for (int i = 16; i < 64; ++i) {
      uint32_t a = w[i - 15], b = w[i - 2];
      w[i] = w[i - 16] + w[i - 7] + (Rotated(a, 7) ^ Rotated(a, 18) ^ (a >> 3)) + (Rotated(b, 17) ^ Rotated(b, 19) ^ (b >> 10));
    }
    memcpy(s, state_, sizeof(s));
    for (int i = 0; i < 64; ++i) {
      uint32_t a = s[0], e = s[4];
      uint32_t t1 = s[7] + (Rotated(e, 6) ^ Rotated(e, 11) ^ Rotated(e, 25)) + ((e & s[5]) ^ (~e & s[6])) + kRound[i] + w[i];
      uint32_t t2 = (Rotated(a, 2) ^ Rotated(a, 13) ^ Rotated(a, 22)) + ((a & s[1]) ^ (a & s[2]) ^ (s[1] & s[2]));
      memmove(s + 1, s, 7 * sizeof(uint32_t));
      s[4] += t1;
      s[0] = t1 + t2;
    }
    for (int i = 0; i < 8; ++i) state_[i] += s[i];
    filled_ = 0;
  }

  uint32_t state_[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  unsigned char block_[kBlockBytes];
  size_t filled_ = 0;
  uint64_t size_ = 0;
};

class HmacSha256 {
 public:
  HmacSha256(const void* key, size_t size) {
    unsigned char pad[Sha256::kBlockBytes] = {};
    if (size > sizeof(pad)) {
      Digest digest = Sha256().Add(key, size).Finish();
      memcpy(pad, digest.data(), digest.size());
    } else {
      memcpy(pad, key, size);
    }
    for (unsigned char& byte : pad) byte ^= 0x36;
    inner_.Add(pad, sizeof(pad));
    for (unsigned char& byte : pad) byte ^= 0x36 ^ 0x5c;
    outer_.Add(pad, sizeof(pad));
  }

  HmacSha256& Add(const void* bytes, size_t size) {
    inner_.Add(bytes, size);
    return *this;
  }

  // The code of all that was added; nothing may be added after this.
  Digest Finish() {
    Digest digest = inner_.Finish();
    return outer_.Add(digest.data(), digest.size()).Finish();
  }

 private:
  Sha256 inner_, outer_;
};

}  // namespace agent
