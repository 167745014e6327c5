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

#include "picture.h"

#define EXPORTED __attribute__((visibility("default")))

enum { MOST_SIDE = 65500 }; /* libjpeg's */

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

EXPORTED int squint_baseline_supported(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
}

EXPORTED size_t squint_baseline_state(void) { return sizeof(State); }

/* Decode the pixels x0..x1, y0..y1 of the picture at 1/shrink (1, 2, 4, 8) into out, 3 bytes each, row by row. `width`
   and `height` are what the caller has read of the picture's size. `state` begins as zeros and is kept between calls.
   Returns DONE, or LEFT with whatever in `out`. */
EXPORTED int squint_baseline_decode(const uint8_t *data, size_t size, int width, int height, int shrink, int x0, int y0, int x1, int y1,
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
    /* The coded data is done with. */
    put_pixels(&picture, x0, y0, x1, y1, out, rest);
    return DONE;
}
