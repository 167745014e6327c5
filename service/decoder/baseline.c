/* Baseline JPEG to RGB: of a part of the picture, at 1, 1/2, 1/4 or 1/8 of its size.

   The pixels are libjpeg-turbo's, bit for bit, with its accurate integer DCT and its smooth ("fancy") enlarging of
   chroma. Here is only what photos mostly are: 8 bits, baseline, YCbCr in one scan, 4:4:4, 4:2:2 or 4:2:0. Everything
   else, and everything in which anything at all is odd, is left to the library: there is one answer, LEFT, and no
   message. So what is corrupt is never judged here.

   Formats and tables: ITU-T T.81. Inverse transform: Loeffler, Ligtenberg and Moschytz, "Practical fast 1-D DCT
   algorithms with 11 multiplications" (1989), in fixed point with 13 bits, two of which are kept between the passes; at
   less than full size, the same with the terms left out that the kept samples do not need. Looking two symbols up at
   once, and refilling 64 bits without a branch, are common knowledge among writers of entropy decoders.

   Bounds. Segments are read only inside their declared lengths, which are held against the file. Coded data is copied
   behind itself into the scratch memory, without stuffing and with PAD zeros after it; a block reads less than PAD
   bytes, and after each it is seen whether its end was passed. A block has 64 places, and an index beyond is noticed
   before anything is written. Planes and lines hold what their sizes were computed from, and SPARE bytes for whole
   vectors. Nothing is kept between two calls but the Huffman tables. */

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { DONE = 0, LEFT = 1 };
enum { LOOK = 10, MORE = 0x80, END_OF_BLOCK = 128 };
/* Numbers of a picture are at most some 1,400. What is far beyond is none, and there libraries begin to overflow, each in
   its own way. */
enum { MOST_MEAN = 4087, MOST_NUMBER = 8191 };
enum { MOST_SIDE = 65500 }; /* libjpeg's */
enum { PAD = 320, SPARE = 64, MOST_BLOCKS = 6 };

/* What the first LOOK bits hold. Bits 0 to 6: how many are taken. Bits 8 to 15 and 16 to 23: places to advance, for the
   first and the second symbol (0: there is none). Bits 32 to 47 and 48 to 63: their values. Or, if bit 7 is set, MORE: the
   length of a code in bits 0 to 6 and its symbol in 8 to 15, whose value does not fit; nothing, if the code does not. */
typedef uint64_t Entry;

typedef struct {
    uint8_t counts[16], symbols[256]; /* what it was built from */
    int32_t known;
    int32_t last[17], shift[17]; /* for codes of each length: the last, and what takes a code to its symbol */
    Entry entries[1 << LOOK];
} Table;

typedef struct {
    Table tables[4]; /* DC 0, DC 1, AC 0, AC 1 */
} State;

typedef struct {
    int across, down;       /* blocks of one MCU */
    int quantiser, dc, ac;  /* numbers of tables */
    int side;               /* samples of a block's side, at the size asked for */
    int width, height;      /* samples of the whole component */
    int x0, y0, x1, y1;     /* the blocks that are wanted */
    int predicted;
    ptrdiff_t stride;
    uint8_t *plane;
} Component;

typedef struct {
    int width, height, count, restart;
    Component components[3];
    uint16_t quantisers[4][64]; /* in zigzag order */
    int quantised;              /* a bit for each table that the file has brought */
    const uint8_t *tables[4];   /* where those of State are in the file, which may bring them often: their counts, their symbols */
    const uint8_t *coded;
} Picture;

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

static inline int least(int a, int b) { return a < b ? a : b; }
static inline int most(int a, int b) { return a > b ? a : b; }
static inline int parts(int a, int b) { return (a + b - 1) / b; }

/* --- headers ---------------------------------------------------------------------------------------------------- */

typedef struct {
    int length, advance, value;
} Symbol;

/* What a code of `length` bits, followed by `rest` in the lookup, stands for. Length 0, the symbol and the length of its
   code if its value does not fit. */
static Symbol symbol_of(int symbol, int length, int rest, int coefficients) {
    int size = coefficients ? symbol & 15 : symbol, advance = coefficients ? (symbol >> 4) + 1 : 1, value = 0;
    if (coefficients && symbol == 0) return (Symbol){length, END_OF_BLOCK, 0};
    if (length + size > LOOK) return (Symbol){0, symbol, length};
    if (size) {
        value = rest >> (LOOK - length - size) & ((1 << size) - 1);
        if (value < 1 << (size - 1)) value += 1 - (1 << size);
    }
    return (Symbol){length + size, advance, value};
}

static int build(Table *table, const uint8_t *counts, int coefficients) {
    Symbol found[1 << LOOK];
    const uint8_t *symbols = counts + 16;
    int code = 0, at = 0, total = 0;
    for (int i = 0; i < 16; i++) total += counts[i];
    if (table->known && !memcmp(table->counts, counts, 16) && !memcmp(table->symbols, symbols, total)) return DONE;
    table->known = 0;
    memset(found, 0, sizeof found);
    memset(table->symbols, 0, sizeof table->symbols);
    memcpy(table->counts, counts, 16);
    memcpy(table->symbols, symbols, total);
    for (int length = 1; length <= 16; length++) {
        table->shift[length] = at - code;
        for (int i = 0; i < counts[length - 1]; i++, at++, code++) {
            int symbol = symbols[at];
            if (code >= (1 << length) - 1) return LEFT; /* no code is all ones */
            if (coefficients ? !(symbol & 15) && symbol != 0 && symbol != 0xf0 : symbol > 11) return LEFT;
            for (int rest = 0; length <= LOOK && rest < 1 << (LOOK - length); rest++)
                found[code << (LOOK - length) | rest] = symbol_of(symbol, length, rest, coefficients);
        }
        table->last[length] = counts[length - 1] ? code - 1 : -1;
        code <<= 1;
    }
    for (int i = 0; i < 1 << LOOK; i++) {
        Symbol first = found[i], second = {0, 0, first.value};
        if (coefficients && first.length && first.advance != END_OF_BLOCK) {
            Symbol next = found[i << first.length & ((1 << LOOK) - 1)];
            if (next.length && first.length + next.length <= LOOK) second = next;
        }
        table->entries[i] = !first.length ? (Entry)(MORE | first.value) | (Entry)first.advance << 8
                                          : (Entry)(first.length + second.length) | (Entry)first.advance << 8 |
                                                (Entry)second.advance << 16 | (Entry)(uint16_t)first.value << 32 |
                                                (Entry)(uint16_t)second.value << 48;
    }
    table->known = 1;
    return DONE;
}

static int read_tables(Picture *picture, const uint8_t *at, const uint8_t *end) {
    while (at < end) {
        int total = 0, kind = *at >> 4, number = *at & 15;
        if (end - at < 17 || kind > 1 || number > 1) return LEFT;
        for (int i = 1; i <= 16; i++) total += at[i];
        if (total > 256 || end - at < 17 + total) return LEFT;
        picture->tables[2 * kind + number] = at + 1;
        at += 17 + total;
    }
    return DONE;
}

static int read_quantisers(Picture *picture, const uint8_t *at, const uint8_t *end) {
    for (; at < end; at += 65) {
        if (end - at < 65 || *at > 3) return LEFT;
        for (int i = 0; i < 64; i++) {
            if (!at[1 + i]) return LEFT; /* there, sums of differences would have no bound */
            picture->quantisers[*at][i] = at[1 + i];
        }
        picture->quantised |= 1 << *at;
    }
    return DONE;
}

static int read_frame(Picture *picture, const uint8_t *at, const uint8_t *end, uint8_t *names) {
    if (picture->count || end - at != 15 || at[0] != 8 || at[5] != 3) return LEFT;
    picture->height = at[1] << 8 | at[2];
    picture->width = at[3] << 8 | at[4];
    picture->count = 3;
    for (int i = 0; i < 3; i++) {
        Component *component = &picture->components[i];
        names[i] = at[6 + 3 * i];
        component->across = at[7 + 3 * i] >> 4;
        component->down = at[7 + 3 * i] & 15;
        component->quantiser = at[8 + 3 * i];
        if (component->quantiser > 3) return LEFT;
        if (i && (component->across != 1 || component->down != 1)) return LEFT;
    }
    int across = picture->components[0].across, down = picture->components[0].down;
    return across >= 1 && across <= 2 && down >= 1 && down <= across ? DONE : LEFT;
}

static int read_scan(Picture *picture, State *state, const uint8_t *at, const uint8_t *end, const uint8_t *names) {
    if (picture->count != 3 || end - at != 10 || at[0] != 3 || at[7] != 0 || at[8] != 63 || at[9] != 0) return LEFT;
    for (int i = 0; i < 3; i++) {
        Component *component = &picture->components[i];
        if (at[1 + 2 * i] != names[i]) return LEFT;
        component->dc = at[2 + 2 * i] >> 4;
        component->ac = at[2 + 2 * i] & 15;
        if (component->dc > 1 || component->ac > 1 || !(picture->quantised >> component->quantiser & 1)) return LEFT;
        for (int kind = 0; kind < 2; kind++) {
            int number = kind ? 2 + component->ac : component->dc;
            if (!picture->tables[number] || build(&state->tables[number], picture->tables[number], kind)) return LEFT;
        }
    }
    return DONE;
}

/* Everything before the coded data. */
static int read_headers(Picture *picture, State *state, const uint8_t *at, const uint8_t *end) {
    uint8_t names[3] = {0};
    int jfif = 0, adobe = 0;
    if (end - at < 4 || at[0] != 0xff || at[1] != 0xd8) return LEFT;
    at += 2;
    for (;;) {
        if (end - at < 4 || at[0] != 0xff) return LEFT;
        int marker = at[1], length = at[2] << 8 | at[3], wrong = DONE;
        if (length < 2 || end - at < 2 + length) return LEFT;
        const uint8_t *body = at + 4;
        at += 2 + length;
        if (marker == 0xc0) wrong = read_frame(picture, body, at, names);
        else if (marker == 0xc4) wrong = read_tables(picture, body, at);
        else if (marker == 0xdb) wrong = read_quantisers(picture, body, at);
        else if (marker == 0xdd) {
            if (length != 4) return LEFT;
            picture->restart = body[0] << 8 | body[1];
        } else if (marker == 0xe0) jfif |= length >= 16 && !memcmp(body, "JFIF", 5);
        else if (marker == 0xee) {
            if (length < 14 || memcmp(body, "Adobe", 5) || body[11] != 1) return LEFT;
            adobe = 1;
        } else if (marker == 0xda) {
            if (read_scan(picture, state, body, at, names)) return LEFT;
            break;
        } else if (marker != 0xfe && (marker < 0xe0 || marker > 0xef)) return LEFT;
        if (wrong) return LEFT;
    }
    /* Otherwise the names tell what the components are, which is for the library to say. */
    if (!jfif && !adobe && (names[0] != 1 || names[1] != 2 || names[2] != 3)) return LEFT;
    picture->coded = at;
    return DONE;
}

/* --- coded data ------------------------------------------------------------------------------------------------- */

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

/* --- the inverse transform -------------------------------------------------------------------------------------- */

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

static inline int put_block(const Component *component, int x, int y, const int16_t *block, int last) {
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

/* Sixty-four zeros. (The start of memset takes longer than that.) */
static inline void clear(int16_t *block) {
    __m256i *at = (__m256i *)block, zeros = _mm256_setzero_si256();
    _mm256_store_si256(at, zeros);
    _mm256_store_si256(at + 1, zeros);
    _mm256_store_si256(at + 2, zeros);
    _mm256_store_si256(at + 3, zeros);
}

/* Read all blocks, and transform those that are wanted. The coded data is gone through to its end, so that a file that is
   cut or corrupt anywhere is noticed. */
static int read_blocks(Picture *picture, const State *state, const uint8_t *end, uint8_t *scratch) {
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

/* --- colours ---------------------------------------------------------------------------------------------------- */

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

/* --- what is called --------------------------------------------------------------------------------------------- */

/* Sizes of each component at the size asked for, the blocks of it that x0..x1, y0..y1 need, and its place in `scratch`.
   Returns where the rest of it begins, or NULL. */
static uint8_t *lay_out(Picture *picture, int shrink, int x0, int y0, int x1, int y1, uint8_t *scratch, const uint8_t *end) {
    const Component *luma = &picture->components[0];
    int across = luma->across, down = luma->down, side = 8 / shrink;
    for (int i = 0; i < 3; i++) {
        Component *c = &picture->components[i];
        /* Chroma that is halved both ways comes out of its transform at the size of luma, where that is smaller than 8. */
        c->side = i && across == 2 && down == 2 && side < 8 ? 2 * side : side;
        c->width = parts(picture->width * c->across * c->side, across * 8);
        c->height = parts(picture->height * c->down * c->side, down * 8);
        int halved = i && across == 2 && c->side == side, rows_halved = halved && down == 2;
        if (halved && (c->width <= 2 || side == 1)) return NULL; /* enlarged in another way there */
        int left = halved ? most(0, (x0 >> 1) - 1) : x0, right = halved ? least(c->width, ((x1 - 1) >> 1) + 2) : x1;
        int top = rows_halved ? most(0, (y0 >> 1) - 1) : y0, bottom = rows_halved ? least(c->height, ((y1 - 1) >> 1) + 2) : y1;
        c->x0 = left / c->side, c->x1 = parts(right, c->side);
        c->y0 = top / c->side, c->y1 = parts(bottom, c->side);
        c->stride = (ptrdiff_t)(c->x1 - c->x0) * c->side;
        ptrdiff_t size = c->stride * (c->y1 - c->y0) * c->side + SPARE;
        if (end - scratch < size) return NULL;
        c->plane = scratch;
        scratch += size;
    }
    return scratch;
}

int squint_baseline_supported(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
}

size_t squint_baseline_state(void) { return sizeof(State); }

/* Decode the pixels x0..x1, y0..y1 of the picture at 1/shrink (1, 2, 4, 8) into out, 3 bytes each, row by row. `width`
   and `height` are what the caller has read of the picture's size. `state` begins as zeros and is kept between calls.
   Returns DONE, or LEFT with whatever in `out`. */
int squint_baseline_decode(const uint8_t *data, size_t size, int width, int height, int shrink, int x0, int y0, int x1, int y1,
                        uint8_t *out, uint8_t *scratch, size_t scratch_size, State *state) {
    Picture picture = {0};
    const uint8_t *end = data + size, *scratch_end = scratch + scratch_size;
    if (shrink != 1 && shrink != 2 && shrink != 4 && shrink != 8) return LEFT;
    if (read_headers(&picture, state, data, end) || picture.width != width || picture.height != height) return LEFT;
    if (!width || !height || width > MOST_SIDE || height > MOST_SIDE || x0 < 0 || y0 < 0 || x1 <= x0 || y1 <= y0) return LEFT;
    if (x1 > parts(width, shrink) || y1 > parts(height, shrink)) return LEFT;
    uint8_t *rest = lay_out(&picture, shrink, x0, y0, x1, y1, scratch, scratch_end);
    size_t lines = 4 * ((size_t)(x1 - x0) + 8 * SPARE);
    if (!rest || (size_t)(scratch_end - rest) < lines || (size_t)(scratch_end - rest) < size + PAD + 32) return LEFT;
    if (read_blocks(&picture, state, end, rest)) return LEFT;

    const Component *c = picture.components;
    int across = c[0].across * c[0].side / c[1].side, halved = c[0].down * c[0].side / c[1].side == 2;
    /* The coded data is done with. */
    int16_t *sums = (int16_t *)(rest + ((uintptr_t)rest & 1)) + SPARE;
    uint8_t *line = (uint8_t *)(sums + (x1 - x0) / 2 + SPARE), *second = line + (x1 - x0) + 2 * SPARE;
    for (int y = y0; y < y1; y++) {
        const uint8_t *luma = c[0].plane + (y - c[0].y0 * c[0].side) * c[0].stride + x0 - c[0].x0 * c[0].side;
        const uint8_t *blue = row_of(&c[1], x0, y, halved, sums, line, across);
        const uint8_t *red = row_of(&c[2], x0, y, halved, sums, second, across);
        convert_row(luma, blue, red, out + (size_t)3 * (x1 - x0) * (y - y0), x1 - x0);
    }
    return DONE;
}
