// The map of merged tokens: which patches of an image went through the model as one.

/**
 * Where the network's input lies on an image of `width` x `height` pixels: [x0, y0, x1, y1]. `input` is the model's
 * transform. Of a letterbox the input is larger than the image.
 */
export function placed(width, height, input) {
  if (input.fit === "letterbox") {
    // On whole pixels of the network's input, as decoders do it.
    const scale = Math.min(input.width / width, input.height / height);
    const columns = Math.min(input.width, Math.max(1, Math.floor(width * scale + 0.5)));
    const rows = Math.min(input.height, Math.max(1, Math.floor(height * scale + 0.5)));
    const [column, row] = [Math.floor((input.width - columns) / 2), Math.floor((input.height - rows) / 2)];
    const [x, y] = [width / columns, height / rows];
    return [-column * x, -row * y, (input.width - column) * x, (input.height - row) * y];
  }
  let [across, down] = [width, height];
  if (input.fit === "crop") {
    across = Math.min(width, (height * input.width) / input.height);
    down = Math.min(height, (width * input.height) / input.width);
  }
  across *= input.keep;
  down *= input.keep;
  return [(width - across) / 2, (height - down) / 2, (width + across) / 2, (height + down) / 2];
}

/** The group of each patch, row by row, from runs [[group, length], ...]. */
export function groups(lengths) {
  return lengths.flatMap(([group, length]) => new Array(length).fill(group));
}

/** "96 groups of 196 patches; the largest holds 23, 61 patches are alone." */
export function summary(tokens) {
  const patches = tokens.grid[0] * tokens.grid[1];
  const alone = tokens.sizes.filter((size) => size === 1).length;
  if (alone === patches) return `${patches} patches, none merged: each is a token of its own.`;
  const largest = Math.max(...tokens.sizes);
  return `${patches} patches in ${tokens.sizes.length} groups; the largest holds ${largest}, ${alone} are alone.`;
}

/** How many groups there are of each size, smallest size first: [[size, groups], ...]. */
export function sizes(tokens) {
  const found = new Map();
  for (const size of tokens.sizes) found.set(size, (found.get(size) || 0) + 1);
  return [...found].sort((a, b) => a[0] - b[0]);
}

/** Draws one answer's map over a picture, and tells which group is under a point. */
export class TokenMap {
  /** `picture` is what an image element shows, `input` the model's transform. */
  constructor(tokens, picture, input) {
    [this.rows, this.columns] = tokens.grid;
    this.sizes = tokens.sizes;
    this.group = groups(tokens.groups.runs);
    this.picture = picture;
    this.box = placed(picture.width, picture.height, input);
  }

  /** Fills each group with the mean of its pixels, parts it from others by a line, and writes the size into it. */
  paint(canvas, scale) {
    const context = canvas.getContext("2d");
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.save();
    context.scale(scale, scale);
    this.#shadeOutside(context);
    this.#fill(context);
    this.#part(context, scale);
    this.#number(context, scale);
    context.restore();
  }

  /** The size of the group at a point of the picture; 0 where there is none. */
  at(x, y) {
    const column = Math.floor(((x - this.box[0]) / (this.box[2] - this.box[0])) * this.columns);
    const row = Math.floor(((y - this.box[1]) / (this.box[3] - this.box[1])) * this.rows);
    if (column < 0 || row < 0 || column >= this.columns || row >= this.rows) return 0;
    return this.sizes[this.group[row * this.columns + column]];
  }

  /** [x, y, width, height] of a patch on the picture. */
  #cell(index) {
    const [wide, tall] = [(this.box[2] - this.box[0]) / this.columns, (this.box[3] - this.box[1]) / this.rows];
    const [row, column] = [Math.floor(index / this.columns), index % this.columns];
    return [this.box[0] + column * wide, this.box[1] + row * tall, wide, tall];
  }

  /** What the network does not see of the picture. */
  #shadeOutside(context) {
    const [x0, y0, x1, y1] = this.box;
    context.fillStyle = "rgb(0 0 0 / 55%)";
    context.beginPath();
    context.rect(0, 0, this.picture.width, this.picture.height);
    context.rect(x0, y0, x1 - x0, y1 - y0);
    context.fill("evenodd");
  }

  #fill(context) {
    const means = this.#means();
    this.group.forEach((group, index) => {
      const [x, y, wide, tall] = this.#cell(index);
      const [red, green, blue] = means[group];
      context.fillStyle = `rgb(${red} ${green} ${blue})`;
      // A little over the edge, so that no seams show between patches of one group.
      context.fillRect(x, y, wide + 0.6, tall + 0.6);
    });
  }

  /** The mean colour of each group. */
  #means() {
    const small = new OffscreenCanvas(this.columns, this.rows).getContext("2d", { willReadFrequently: true });
    const [x0, y0, x1, y1] = this.box;
    small.imageSmoothingQuality = "high";
    small.drawImage(this.picture.element, x0, y0, x1 - x0, y1 - y0, 0, 0, this.columns, this.rows);
    const pixels = small.getImageData(0, 0, this.columns, this.rows).data;
    const sums = this.sizes.map(() => [0, 0, 0]);
    this.group.forEach((group, index) => {
      for (let channel = 0; channel < 3; channel++) sums[group][channel] += pixels[index * 4 + channel];
    });
    return sums.map((sum, group) => sum.map((value) => Math.round(value / this.sizes[group])));
  }

  #part(context, scale) {
    const lines = new Path2D();
    this.group.forEach((group, index) => {
      const [x, y, wide, tall] = this.#cell(index);
      const last = index % this.columns === this.columns - 1;
      if (!last && this.group[index + 1] !== group) {
        lines.moveTo(x + wide, y);
        lines.lineTo(x + wide, y + tall);
      }
      if (index + this.columns < this.group.length && this.group[index + this.columns] !== group) {
        lines.moveTo(x, y + tall);
        lines.lineTo(x + wide, y + tall);
      }
    });
    context.lineCap = "square";
    for (const [style, width] of [["rgb(0 0 0 / 35%)", 3], ["rgb(255 255 255 / 92%)", 1.25]]) {
      context.strokeStyle = style;
      context.lineWidth = width / scale;
      context.stroke(lines);
    }
  }

  /** Writes the size of every larger group into that of its patches which is nearest to their middle. */
  #number(context, scale) {
    const members = this.sizes.map(() => []);
    this.group.forEach((group, index) => members[group].push(index));
    const tall = (this.box[3] - this.box[1]) / this.rows;
    context.font = `600 ${Math.max(tall * 0.5, 9 / scale)}px ${getComputedStyle(document.body).fontFamily}`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.lineJoin = "round";
    for (const own of members.filter((some) => some.length > 2)) {
      const middles = own.map((index) => {
        const [x, y, wide, high] = this.#cell(index);
        return [x + wide / 2, y + high / 2];
      });
      const mean = [0, 1].map((axis) => middles.reduce((sum, point) => sum + point[axis], 0) / own.length);
      const away = (point) => (point[0] - mean[0]) ** 2 + (point[1] - mean[1]) ** 2;
      const [x, y] = middles.reduce((best, point) => (away(point) < away(best) ? point : best));
      context.strokeStyle = "rgb(0 0 0 / 70%)";
      context.lineWidth = 3 / scale;
      context.strokeText(String(own.length), x, y);
      context.fillStyle = "#fff";
      context.fillText(String(own.length), x, y);
    }
  }
}
