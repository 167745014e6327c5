/* The inverse transform of blocks, to 8, 4, 2 or 1 samples a side. */

#include <immintrin.h>
#include <string.h>

#include "picture.h"

enum { BITS = 13, KEPT = 2 };

static inline __m256i pairs(__m128i a, __m128i b) {
    return _mm256_set_m128i(_mm_unpackhi_epi16(a, b), _mm_unpacklo_epi16(a, b));
}

/* a * x + b * y in each of eight lanes, of 32 bits; constants in 2^-13. */
static inline __m256i products(__m256i pair, int x, int y) {
    return _mm256_madd_epi16(pair, _mm256_set1_epi32((int)((uint32_t)(uint16_t)y << 16 | (uint16_t)x)));
}

static inline __m128i scaled(__m256i sum, int shift) {
    sum = _mm256_srai_epi32(_mm256_add_epi32(sum, _mm256_set1_epi32(1 << (shift - 1))), shift);
    return _mm_packs_epi32(_mm256_castsi256_si128(sum), _mm256_extracti128_si256(sum, 1));
}

static inline void transpose(__m128i r[8]) {
    __m128i a[8], b[8];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        a[2 * i] = _mm_unpacklo_epi16(r[i], r[i + 4]);
        a[2 * i + 1] = _mm_unpackhi_epi16(r[i], r[i + 4]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        b[2 * i] = _mm_unpacklo_epi16(a[i], a[i + 4]);
        b[2 * i + 1] = _mm_unpackhi_epi16(a[i], a[i + 4]);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++) {
        r[2 * i] = _mm_unpacklo_epi16(b[i], b[i + 4]);
        r[2 * i + 1] = _mm_unpackhi_epi16(b[i], b[i + 4]);
    }
}

#define SUM(a, b) _mm256_add_epi32(a, b)
#define DIFFERENCE(a, b) _mm256_sub_epi32(a, b)
#define BOTH(low, high, even, odd) (r[low] = scaled(SUM(even, odd), shift), r[high] = scaled(DIFFERENCE(even, odd), shift))

/* One pass down the columns of r, in place. */
static inline void pass8(__m128i r[8], int shift) {
    __m256i p26 = pairs(r[2], r[6]);
    __m256i e2 = products(p26, 4433, 4433 - 15137), e3 = products(p26, 4433 + 6270, 4433);
    __m256i e0 = _mm256_slli_epi32(_mm256_cvtepi16_epi32(_mm_add_epi16(r[0], r[4])), BITS);
    __m256i e1 = _mm256_slli_epi32(_mm256_cvtepi16_epi32(_mm_sub_epi16(r[0], r[4])), BITS);
    __m256i t0 = SUM(e0, e3), t3 = DIFFERENCE(e0, e3), t1 = SUM(e1, e2), t2 = DIFFERENCE(e1, e2);

    __m256i p34 = pairs(_mm_add_epi16(r[7], r[3]), _mm_add_epi16(r[5], r[1]));
    __m256i z3 = products(p34, 9633 - 16069, 9633), z4 = products(p34, 9633, 9633 - 3196);
    __m256i p71 = pairs(r[7], r[1]), p53 = pairs(r[5], r[3]);
    __m256i o0 = SUM(products(p71, 2446 - 7373, -7373), z3), o3 = SUM(products(p71, -7373, 12299 - 7373), z4);
    __m256i o1 = SUM(products(p53, 16819 - 20995, -20995), z4), o2 = SUM(products(p53, -20995, 25172 - 20995), z3);

    BOTH(0, 7, t0, o3);
    BOTH(1, 6, t1, o2);
    BOTH(2, 5, t2, o1);
    BOTH(3, 4, t3, o0);
}

/* The same to four samples: r[0] to r[3], and zeros. */
static inline void pass4(__m128i r[8], int shift) {
    __m256i e0 = _mm256_slli_epi32(_mm256_cvtepi16_epi32(r[0]), BITS + 1), e2 = products(pairs(r[2], r[6]), 15137, -6270);
    __m256i t0 = SUM(e0, e2), t2 = DIFFERENCE(e0, e2), p75 = pairs(r[7], r[5]), p31 = pairs(r[3], r[1]);
    __m256i o0 = SUM(products(p75, -1730, 11893), products(p31, -17799, 8697));
    __m256i o2 = SUM(products(p75, -4176, -4926), products(p31, 7373, 20995));
    BOTH(0, 3, t0, o2);
    BOTH(1, 2, t2, o0);
    for (int i = 4; i < 8; i++) r[i] = _mm_setzero_si128();
}

/* The same to two. */
static inline void pass2(__m128i r[8], int shift) {
    __m256i even = _mm256_slli_epi32(_mm256_cvtepi16_epi32(r[0]), BITS + 2);
    __m256i odd = SUM(products(pairs(r[7], r[5]), -5906, 6967), products(pairs(r[3], r[1]), -10426, 29692));
    BOTH(0, 1, even, odd);
    for (int i = 2; i < 8; i++) r[i] = _mm_setzero_si128();
}

static inline int inverse(const int16_t *block, int side, uint8_t *out, ptrdiff_t stride) {
    __m128i r[8], highest = _mm_setzero_si128(), lowest = highest;
#pragma GCC unroll 8
    for (int i = 0; i < 8; i++) {
        r[i] = _mm_load_si128((const __m128i *)(block + 8 * i));
        highest = _mm_max_epi16(highest, r[i]);
        lowest = _mm_min_epi16(lowest, r[i]);
    }
    __m128i high = _mm_cmpgt_epi16(highest, _mm_set1_epi16(MOST_NUMBER));
    if (_mm_movemask_epi8(_mm_or_si128(high, _mm_cmpgt_epi16(_mm_set1_epi16(-MOST_NUMBER), lowest)))) return LEFT;
#pragma GCC unroll 2
    for (int pass = 0; pass < 2; pass++) {
        int shift = pass ? BITS + KEPT + 3 : BITS - KEPT;
        if (side == 8) pass8(r, shift);
        else if (side == 4) pass4(r, shift + 1);
        else pass2(r, shift + 2);
        transpose(r);
    }
#pragma GCC unroll 8
    for (int i = 0; i < side; i++) {
        __m128i samples = _mm_add_epi8(_mm_packs_epi16(r[i], r[i]), _mm_set1_epi8(-128));
        uint64_t row = (uint64_t)_mm_cvtsi128_si64(samples);
        memcpy(out + i * stride, &row, side);
    }
    return DONE;
}

int put_block(const Component *component, int x, int y, const int16_t *block, int last) {
    int side = component->side;
    uint8_t *out = component->plane + (y - component->y0) * (ptrdiff_t)side * component->stride + (x - component->x0) * side;
    if (last == 0 || side == 1) {
        int value = most(0, least(255, ((block[0] + 4) >> 3) + 128));
        for (int i = 0; i < side; i++) memset(out + i * component->stride, value, side);
        return DONE;
    }
    if (side == 8) return inverse(block, 8, out, component->stride);
    if (side == 4) return inverse(block, 4, out, component->stride);
    return inverse(block, 2, out, component->stride);
}
