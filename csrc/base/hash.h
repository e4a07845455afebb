/* FNV-1a for names and text sums, CRC-32C for the header. Neither guards against an enemy. */
#ifndef CFN_BASE_HASH_H
#define CFN_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

static inline uint64_t cfn_hash64(const void *bytes, size_t n) {
  const unsigned char *p = bytes;
  uint64_t h = 0xcbf29ce484222325u;
  for (size_t i = 0; i < n; i++) h = (h ^ p[i]) * 0x100000001b3u;
  return h ^ (h >> 32);
}

static inline uint32_t cfn_crc32c(const void *bytes, size_t n) {
  const unsigned char *p = bytes;
  uint32_t crc = ~0u;
  for (size_t i = 0; i < n; i++) {
    crc ^= p[i];
    for (int bit = 0; bit < 8; bit++) crc = (crc >> 1) ^ (0x82f63b78u & (0u - (crc & 1u)));
  }
  return ~crc;
}

#endif
