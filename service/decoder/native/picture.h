/* What the parts of this decoder share: of a picture what its headers say, and what becomes of it. baseline.c has the whole
   story. */

#ifndef SQUINT_PICTURE_H
#define SQUINT_PICTURE_H

#include <stddef.h>
#include <stdint.h>

enum { DONE = 0, LEFT = 1 };
enum { LOOK = 10, MORE = 0x80, END_OF_BLOCK = 128 };
enum { PAD = 320, SPARE = 64 };
/* Numbers of a picture are at most some 1,400. What is far beyond is none, and there libraries begin to overflow, each in
   its own way. */
enum { MOST_MEAN = 4087, MOST_NUMBER = 3100 };

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
    const uint8_t *tables[4];   /* where the last of each are in the file: counts, and symbols behind them */
    const uint8_t *coded;
} Picture;

static inline int least(int a, int b) { return a < b ? a : b; }
static inline int most(int a, int b) { return a > b ? a : b; }
static inline int parts(int a, int b) { return (a + b - 1) / b; }

/* headers.c: read everything before the coded data, and build the tables that it names. DONE or LEFT. */
int read_headers(Picture *picture, State *state, const uint8_t *at, const uint8_t *end);

/* coded.c: read all blocks, and transform those that are wanted. The coded data is gone through to its end, so that a file
   that is cut or corrupt anywhere is noticed. Of `scratch` as much as is left of the file, PAD and 32 bytes are used. DONE
   or LEFT. */
int read_blocks(Picture *picture, const State *state, const uint8_t *end, uint8_t *scratch);

/* transform.c: put a block where its samples belong. Its numbers stand in rows, at an address that is a multiple of 16;
   `last` is where the last of them is in zigzag order. DONE, or LEFT if they are out of all bounds. */
int put_block(const Component *component, int x, int y, const int16_t *block, int last);

/* colours.c: RGB of the pixels x0..x1, y0..y1, 3 bytes each. Of `scratch` 4 * (x1 - x0 + 8 * SPARE) bytes are used. */
void put_pixels(const Picture *picture, int x0, int y0, int x1, int y1, uint8_t *out, uint8_t *scratch);

#endif
