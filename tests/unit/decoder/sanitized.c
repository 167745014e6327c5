/* Runs baseline.c on cases from standard input, in memory that is not a byte larger than it was told, to be built with
   sanitizers. A case is nine numbers of 32 bits (width, height, shrink, x0, y0, x1, y1, bytes of scratch memory, bytes
   of the file) and the file. For each one character comes out: D (done), L (left to the library), N (left only for need
   of scratch memory), U (the pixels depend on what was in memory before). */

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int squint_baseline_decode(const uint8_t *data, size_t size, int width, int height, int shrink, int x0, int y0, int x1, int y1,
                           uint8_t *out, uint8_t *scratch, size_t scratch_size, void *state);
size_t squint_baseline_state(void);

enum { WIDTH, HEIGHT, SHRINK, X0, Y0, X1, Y1, SCRATCH, SIZE, NUMBERS };
enum { PLENTY = 1 << 15 };

static void *must(void *memory) {
    if (!memory) exit(3);
    return memory;
}

/* Decode into memory that held `fill`. Returns the pixels, or NULL if it was left. */
static uint8_t *decode(const int32_t *n, const uint8_t *file, size_t scratch_size, size_t pixels, int fill, void *state) {
    uint8_t *scratch = must(malloc(scratch_size)), *out = must(malloc(pixels));
    memset(scratch, fill, scratch_size);
    memset(out, fill, pixels);
    int left = squint_baseline_decode(file, n[SIZE], n[WIDTH], n[HEIGHT], n[SHRINK], n[X0], n[Y0], n[X1], n[Y1], out,
                                      scratch, scratch_size, state);
    free(scratch);
    if (!left) return out;
    free(out);
    return NULL;
}

static char judge(const int32_t *n, const uint8_t *file, void *state) {
    size_t pixels = (size_t)3 * (n[X1] - n[X0]) * (n[Y1] - n[Y0]);
    uint8_t *out = decode(n, file, n[SCRATCH], pixels, 0, state);
    uint8_t *again = decode(n, file, out ? (size_t)n[SCRATCH] : (size_t)n[SCRATCH] + PLENTY, pixels, 255, state);
    char told = !again ? 'L' : !out ? 'N' : memcmp(out, again, pixels) ? 'U' : 'D';
    free(out);
    free(again);
    return told;
}

int main(void) {
    int32_t numbers[NUMBERS];
    void *state = must(calloc(1, squint_baseline_state()));
    setvbuf(stdout, NULL, _IONBF, 0);
    while (fread(numbers, sizeof numbers, 1, stdin) == 1) {
        uint8_t *file = must(malloc(numbers[SIZE]));
        if (fread(file, 1, numbers[SIZE], stdin) != (size_t)numbers[SIZE]) return 2;
        putchar(judge(numbers, file, state));
        free(file);
    }
    free(state);
    return 0;
}
