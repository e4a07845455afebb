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
  static const uint32_t four_bits[16] = {
      0x00000000, 0x105ec76f, 0x20bd8ede, 0x30e349b1, 0x417b1dbc, 0x5125dad3, 0x61c69362, 0x7198540d,
      0x82f63b78, 0x92a8fc17, 0xa24bb5a6, 0xb21572c9, 0xc38d26c4, 0xd3d3e1ab, 0xe330a81a, 0xf36e6f75};
  const unsigned char *p = bytes;
  uint32_t crc = ~0u;
  for (size_t i = 0; i < n; i++) {
    crc ^= p[i];
    crc = (crc >> 4) ^ four_bits[crc & 15];
    crc = (crc >> 4) ^ four_bits[crc & 15];
  }
  return ~crc;
}

#endif
