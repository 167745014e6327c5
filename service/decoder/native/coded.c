/* Coded data to the numbers of blocks (ITU-T T.81, annex F). */

#include <immintrin.h>
#include <string.h>

#include "picture.h"

enum { MOST_BLOCKS = 6 };

typedef struct {
    const uint8_t *at;
    uint64_t bits;
    int count;
} Reader;

/* Where the numbers of a block, which come in zigzag order, belong; the end of a block belongs nowhere, which is behind. */
static const uint8_t NATURAL[END_OF_BLOCK + 64] = {
    0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6,  7,  14,
    21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63, [64 ... END_OF_BLOCK + 63] = 64,
};

/* Copy the data up to the next marker, without its stuffing, and PAD zeros after it. Returns its length; `stop` is where
   the marker is. Of `out` size + PAD + 32 bytes may be written. */
static size_t unstuff(const uint8_t *at, const uint8_t *end, uint8_t *out, const uint8_t **stop) {
    const __m256i all = _mm256_set1_epi8(-1);
    uint8_t *begin = out;
    for (;;) {
        if (end - at > 32) {
            __m256i bytes = _mm256_loadu_si256((const __m256i *)at);
            unsigned marks = _mm256_movemask_epi8(_mm256_cmpeq_epi8(bytes, all));
            int ordinary = marks ? __builtin_ctz(marks) : 32;
            _mm256_storeu_si256((__m256i *)out, bytes);
            at += ordinary;
            out += ordinary;
            if (!marks) continue;
        } else
            while (at < end && *at != 0xff) *out++ = *at++;
        if (end - at < 2 || at[1]) break;
        *out++ = 0xff;
        at += 2;
    }
    memset(out, 0, PAD);
    *stop = at;
    return out - begin;
}

static inline uint64_t big_endian(const uint8_t *at) {
    uint64_t word;
    memcpy(&word, at, 8);
    return __builtin_bswap64(word);
}

/* A number of `size` bits, whose first bit is 0 where it is negative. Nobody can predict signs, so this has no branch. */
static inline int signed_number(uint64_t bits, int size) {
    return (int)(bits >> 1 >> (63 - size)) + (((int)(bits >> 63) - 1) & (1 - (1 << size)));
}

#define REFILL (bits |= big_endian(at) >> count, at += (63 - count) >> 3, count |= 56)
#define TAKE(some) (bits <<= (some), count -= (some))

/* The first symbol alone, however long; -1 if there is none. */
static inline int symbol_at(uint64_t bits, const Table *table, Entry entry, int *length) {
    if (entry & MORE && entry != MORE) {
        *length = (int)(entry & 63);
        return (int)(entry >> 8 & 255);
    }
    for (int i = entry & MORE ? LOOK + 1 : 1; i <= 16; i++) {
        int code = (int)(bits >> (64 - i));
        if (code > table->last[i]) continue;
        *length = i;
        return table->symbols[(code + table->shift[i]) & 255];
    }
    return -1;
}

/* One block, its numbers multiplied by the quantiser and put in their places of `block`, which holds zeros, and anything
   behind it. Returns the last place that was written in zigzag order, or -1. A block takes at most 27 + 63 * 31 bits, and PAD covers that. */
static inline int read_block(Reader *reader, const Table *restrict dc, const Table *restrict ac,
                             const uint16_t *restrict quantiser, int *predicted, int16_t *restrict block) {
    const uint8_t *at = reader->at;
    uint64_t bits = reader->bits;
    int count = reader->count, length = 0, place = 0;

    REFILL;
    Entry entry = dc->entries[bits >> (64 - LOOK)];
    if (__builtin_expect(!(entry & MORE), 1)) {
        *predicted += (int16_t)(entry >> 32);
        TAKE((int)(entry & 63));
    } else {
        int size = symbol_at(bits, dc, entry, &length);
        if (size < 0) return -1;
        TAKE(length);
        *predicted += signed_number(bits, size);
        TAKE(size);
    }
    int mean = *predicted * quantiser[0];
    if (mean < -MOST_MEAN || mean > MOST_MEAN) return -1;
    block[0] = (int16_t)mean;

    for (;;) {
        REFILL;
        /* Four times, as 56 bits allow. */
        for (int i = 0; i < 4; i++) {
            entry = ac->entries[bits >> (64 - LOOK)];
            if (__builtin_expect(entry & MORE, 0)) goto more;
            int first = place + (int)(entry >> 8 & 255), second = first + (int)(entry >> 16 & 255);
            if (__builtin_expect(second >= 63, 0)) {
                if (second < END_OF_BLOCK || second - END_OF_BLOCK >= 63) goto more;
                block[NATURAL[first]] = (int16_t)((int16_t)(entry >> 32) * quantiser[first & 63]);
                place = first < 63 ? first : place;
                TAKE((int)(entry & 63));
                goto done;
            }
            block[NATURAL[first]] = (int16_t)((int16_t)(entry >> 32) * quantiser[first]);
            block[NATURAL[second]] = (int16_t)((int16_t)(entry >> 48) * quantiser[second]);
            place = second;
            TAKE((int)(entry & 63));
        }
        continue;
    more: /* one symbol, however long, and wherever it leads */
        if (count < 32) continue;
        int symbol = symbol_at(bits, ac, entry, &length), size = symbol & 15;
        if (symbol < 0) return -1;
        TAKE(length);
        if (symbol == 0) break;
        place += (symbol >> 4) + 1;
        if (place > 63) return -1;
        block[NATURAL[place]] = (int16_t)(signed_number(bits, size) * quantiser[place]);
        TAKE(size);
        if (place == 63) break;
    }
done:
    *reader = (Reader){at, bits, count};
    return place;
}

/* Sixty-four zeros. (The start of memset takes longer than that.) */
static inline void clear(int16_t *block) {
    __m256i *at = (__m256i *)block, zeros = _mm256_setzero_si256();
    _mm256_store_si256(at, zeros);
    _mm256_store_si256(at + 1, zeros);
    _mm256_store_si256(at + 2, zeros);
    _mm256_store_si256(at + 3, zeros);
}

int read_blocks(Picture *picture, const State *state, const uint8_t *end, uint8_t *scratch) {
    int16_t numbers[(MOST_BLOCKS + 1) * 64] __attribute__((aligned(32)));
    Component *brightness = &picture->components[0];
    int columns = parts(picture->width, 8 * brightness->across), rows = parts(picture->height, 8 * brightness->down);
    int64_t total = (int64_t)columns * rows, interval = picture->restart ? picture->restart : total, mcu = 0;
    const uint8_t *at = picture->coded;
    int row = 0, column = 0;
    for (int part = 0; mcu < total; part++) {
        const uint8_t *stop;
        size_t length = unstuff(at, end, scratch, &stop);
        const uint8_t *limit = scratch + length + 8;
        Reader reader = {scratch, 0, 0};
        for (int i = 0; i < 3; i++) picture->components[i].predicted = 0;
        for (int64_t to = mcu + interval < total ? mcu + interval : total; mcu < to; mcu++) {
            int blocks = 0, places[MOST_BLOCKS];
            for (int i = 0; i < 3; i++) {
                Component *c = &picture->components[i];
                const Table *dc = &state->tables[c->dc], *ac = &state->tables[2 + c->ac];
                const uint16_t *quantiser = picture->quantisers[c->quantiser];
                for (int inside = 0; inside < c->across * c->down; inside++, blocks++) {
                    clear(numbers + 64 * blocks);
                    places[blocks] = read_block(&reader, dc, ac, quantiser, &c->predicted, numbers + 64 * blocks);
                    if (places[blocks] < 0 || reader.at > limit) return LEFT;
                }
            }
            /* Only now: what was just written in small pieces would be waited for when it is read in large ones. */
            blocks = 0;
            for (int i = 0; i < 3; i++) {
                const Component *c = &picture->components[i];
                for (int inside = 0; inside < c->across * c->down; inside++, blocks++) {
                    int x = column * c->across + inside % c->across, y = row * c->down + inside / c->across;
                    if (x < c->x0 || x >= c->x1 || y < c->y0 || y >= c->y1) continue;
                    if (put_block(c, x, y, numbers + 64 * blocks, places[blocks])) return LEFT;
                }
            }
            if (++column == columns) column = 0, row++;
        }
        /* Of the last byte some bits may be left, and not more. */
        int64_t taken = (int64_t)(reader.at - scratch) * 8 - reader.count;
        if ((taken + 7) / 8 != (int64_t)length || end - stop < 2) return LEFT;
        if (stop[1] != (mcu < total ? 0xd0 + part % 8 : 0xd9)) return LEFT;
        at = stop + 2;
    }
    return DONE;
}
