/* Headers of a JPEG (ITU-T T.81, annex B), and what is looked up for its Huffman codes (annex C). */

#include <string.h>

#include "picture.h"

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

int read_headers(Picture *picture, State *state, const uint8_t *at, const uint8_t *end) {
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
