/* Chroma at the size of luma, and both to RGB. */

#include <immintrin.h>
#include <string.h>

#include "picture.h"

/* Chroma at half the width, or half the sums of two rows: of two neighbours the nearer one weighs three times as much.
   `sums` holds one more on either side, and all are done sixteen at a time. */
static inline void enlarge(const int16_t *sums, uint8_t *out, int count, int shift, int left, int right) {
    for (int i = 0; i < count; i += 16) {
        __m256i sum = _mm256_loadu_si256((const __m256i *)(sums + i));
        __m256i before = _mm256_loadu_si256((const __m256i *)(sums + i - 1));
        __m256i after = _mm256_loadu_si256((const __m256i *)(sums + i + 1));
        __m256i three = _mm256_add_epi16(sum, _mm256_add_epi16(sum, sum));
        before = _mm256_add_epi16(_mm256_add_epi16(three, before), _mm256_set1_epi16((short)left));
        after = _mm256_add_epi16(_mm256_add_epi16(three, after), _mm256_set1_epi16((short)right));
        before = _mm256_srli_epi16(before, shift);
        after = _mm256_slli_epi16(_mm256_srli_epi16(after, shift), 8);
        _mm256_storeu_si256((__m256i *)(out + 2 * i), _mm256_or_si256(before, after));
    }
}

static inline __m256i words_at(const uint8_t *bytes) {
    return _mm256_cvtepu8_epi16(_mm_loadu_si128((const __m128i *)bytes));
}

/* The row `y` of a component of chroma at full width, from sample x0 on. */
static const uint8_t *row_of(const Component *c, int x0, int y, int halved, int16_t *sums, uint8_t *line, int across) {
    int low = c->x0 * c->side, top = c->y0 * c->side;
    if (across == 1) return c->plane + (y - top) * c->stride + x0 - low;
    int at = halved ? y >> 1 : y, beside = most(0, least(c->height - 1, y & 1 ? at + 1 : at - 1));
    int begin = most(0, (x0 >> 1) - 1), count = least(c->x1 * c->side, c->width) - begin;
    const uint8_t *near = c->plane + (at - top) * c->stride + begin - low;
    const uint8_t *far = c->plane + (beside - top) * c->stride + begin - low;
    for (int i = 0; i < count; i += 16) {
        __m256i sum = words_at(near + i);
        if (halved) sum = _mm256_add_epi16(_mm256_add_epi16(sum, words_at(far + i)), _mm256_add_epi16(sum, sum));
        _mm256_storeu_si256((__m256i *)(sums + i), sum);
    }
    sums[-1] = sums[0];
    sums[count] = sums[count - 1];
    if (halved) enlarge(sums, line, count, 4, 8, 7);
    else enlarge(sums, line, count, 2, 1, 2);
    return line + x0 - 2 * begin;
}

/* (a * x + b * y + 1/2) for sixteen pairs, with x and y in 2^-16. */
static inline __m256i weighted(__m256i a, __m256i b, int x, int y) {
    __m256i factors = _mm256_set1_epi32((int)((uint32_t)(uint16_t)y << 16 | (uint16_t)x)), half = _mm256_set1_epi32(1 << 15);
    __m256i low = _mm256_madd_epi16(_mm256_unpacklo_epi16(a, b), factors);
    __m256i high = _mm256_madd_epi16(_mm256_unpackhi_epi16(a, b), factors);
    low = _mm256_srai_epi32(_mm256_add_epi32(low, half), 16);
    high = _mm256_srai_epi32(_mm256_add_epi32(high, half), 16);
    return _mm256_packs_epi32(low, high);
}

static inline __m128i bytes_of(__m256i words) {
    return _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
}

/* Sixteen pixels of YCbCr (JFIF: R = Y + 1.402 Cr, G = Y - 0.34414 Cb - 0.71414 Cr, B = Y + 1.772 Cb) to 48 bytes. What
   exceeds a signed word in 2^-16 is taken apart: 1.402 = 1 + 0.402, 0.71414 = 1 - 0.28586, 1.772 = 2 - 0.228. */
static inline void convert(const uint8_t *y, const uint8_t *cb, const uint8_t *cr, uint8_t *out) {
    const __m256i middle = _mm256_set1_epi16(128), none = _mm256_setzero_si256();
    __m256i luma = words_at(y), blue = _mm256_sub_epi16(words_at(cb), middle), red = _mm256_sub_epi16(words_at(cr), middle);
    __m128i r = bytes_of(_mm256_add_epi16(luma, _mm256_add_epi16(red, weighted(red, none, 26345, 0))));
    __m128i g = bytes_of(_mm256_add_epi16(luma, _mm256_sub_epi16(weighted(blue, red, -22554, 18734), red)));
    __m128i b = bytes_of(_mm256_add_epi16(luma, _mm256_add_epi16(_mm256_add_epi16(blue, blue), weighted(blue, none, -14942, 0))));
#define PLACED(x, ...) _mm_shuffle_epi8(x, _mm_setr_epi8(__VA_ARGS__))
    __m128i first = _mm_or_si128(_mm_or_si128(PLACED(r, 0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1, -1, 5),
                                              PLACED(g, -1, 0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1, -1)),
                                 PLACED(b, -1, -1, 0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1));
    __m128i second = _mm_or_si128(_mm_or_si128(PLACED(r, -1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1, 10, -1),
                                               PLACED(g, 5, -1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1, 10)),
                                  PLACED(b, -1, 5, -1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1));
    __m128i third = _mm_or_si128(_mm_or_si128(PLACED(r, -1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15, -1, -1),
                                              PLACED(g, -1, -1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15, -1)),
                                 PLACED(b, 10, -1, -1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15));
    _mm_storeu_si128((__m128i *)out, first);
    _mm_storeu_si128((__m128i *)(out + 16), second);
    _mm_storeu_si128((__m128i *)(out + 32), third);
}

static void convert_row(const uint8_t *y, const uint8_t *cb, const uint8_t *cr, uint8_t *out, int count) {
    uint8_t rest[48];
    int i = 0;
    for (; i + 16 <= count; i += 16) convert(y + i, cb + i, cr + i, out + 3 * i);
    if (i == count) return;
    convert(y + i, cb + i, cr + i, rest);
    memcpy(out + 3 * i, rest, 3 * (count - i));
}

void put_pixels(const Picture *picture, int x0, int y0, int x1, int y1, uint8_t *out, uint8_t *scratch) {
    const Component *c = picture->components;
    int across = c[0].across * c[0].side / c[1].side, halved = c[0].down * c[0].side / c[1].side == 2;
    int16_t *sums = (int16_t *)(scratch + ((uintptr_t)scratch & 1)) + SPARE;
    uint8_t *line = (uint8_t *)(sums + (x1 - x0) / 2 + SPARE), *second = line + (x1 - x0) + 2 * SPARE;
    for (int y = y0; y < y1; y++) {
        const uint8_t *luma = c[0].plane + (y - c[0].y0 * c[0].side) * c[0].stride + x0 - c[0].x0 * c[0].side;
        const uint8_t *blue = row_of(&c[1], x0, y, halved, sums, line, across);
        const uint8_t *red = row_of(&c[2], x0, y, halved, sums, second, across);
        convert_row(luma, blue, red, out + (size_t)3 * (x1 - x0) * (y - y0), x1 - x0);
    }
}
