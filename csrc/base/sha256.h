/* SHA-256 (FIPS 180-4), for the command; in Python hashlib does it. */
#ifndef CFN_BASE_SHA256_H
#define CFN_BASE_SHA256_H

#include <stddef.h>
#include <stdint.h>

void cfn_sha256(const void *data, size_t bytes, uint8_t out[32]);

#endif
