// COCO run lengths: pure functions on numbers and arrays.
//
// Runs go down the columns of an image, column after column: first pixels outside, then inside, in turn.

/** The text of `counts` as runs of set pixels: [begin, end, begin, end, ...], begins and ends counting pixels. */
export function runs(text) {
  const lengths = [];
  for (let at = 0; at < text.length; ) {
    let value = 0;
    let shift = 0;
    let bits;
    do {
      bits = text.charCodeAt(at++) - 48;
      value |= (bits & 31) << shift;
      shift += 5;
    } while (bits & 32);
    if (bits & 16 && shift < 32) value |= -1 << shift;
    // From the third on, a length is told as the difference from the one two before it.
    if (lengths.length > 2) value += lengths[lengths.length - 2];
    lengths.push(value);
  }
  const found = [];
  let position = 0;
  lengths.forEach((length, index) => {
    if (index % 2 && length) found.push(position, position + length);
    position += length;
  });
  return found;
}

/** How many pixels two sets of runs have in common. */
export function shared(some, others) {
  let total = 0;
  for (let i = 0, j = 0; i < some.length && j < others.length; ) {
    total += Math.max(0, Math.min(some[i + 1], others[j + 1]) - Math.max(some[i], others[j]));
    if (some[i + 1] < others[j + 1]) i += 2;
    else j += 2;
  }
  return total;
}

/** How many pixels these runs have. */
export function area(some) {
  let total = 0;
  for (let i = 0; i < some.length; i += 2) total += some[i + 1] - some[i];
  return total;
}

/**
 * The classes of an image of `height` x `width` pixels, seen at `tall` x `wide`: one number for each of those, row by
 * row, 0 where no class is. `segments` are those of an answer in the form `rle`.
 */
export function classMap(segments, height, width, tall, wide) {
  const map = new Uint16Array(tall * wide);
  for (const segment of segments) {
    const set = runs(segment.counts);
    let next = 0;
    for (let x = 0; x < wide; x++) {
      const top = Math.min(width - 1, Math.floor(((x + 0.5) * width) / wide)) * height;
      while (next < set.length && set[next + 1] <= top) next += 2;
      for (let run = next; run < set.length && set[run] < top + height; run += 2) {
        const begin = Math.max(0, set[run] - top);
        const end = Math.min(height, set[run + 1] - top);
        const last = Math.ceil((end * tall) / height - 0.5);
        for (let y = Math.max(0, Math.ceil((begin * tall) / height - 0.5)); y < last; y++) {
          map[y * wide + x] = segment.index;
        }
      }
    }
  }
  return map;
}
