// What turns a drawing or a photograph into the 28 x 28 grey levels that a model was trained on.
// Plain functions of arrays, without a browser's objects. An image is {width, height, values}: row by row, 0 to 255.

export const SIZE = 28;
const BOX = 20; // MNIST's digits fill a box of this size
const CENTRE = 14; // the index of the pixel where MNIST has each digit's centre of mass

/**
 * As MNIST was made from NIST's digits (Y. LeCun, "The MNIST database of handwritten digits"): fitted into a 20 x 20 box
 * with its shape kept, grey where the edge covers a pixel partly, then moved so that the centre of mass is in the middle.
 * Returns null where there is no ink.
 */
export function digit(ink) {
  const box = bounds(ink, 0);
  if (!box) return null;
  const scale = BOX / Math.max(box.width, box.height);
  const small = resize(crop(ink, box), fitted(box.width * scale), fitted(box.height * scale));
  const centre = centreOfMass(small);
  return placed(small, Math.round(CENTRE - centre.x), Math.round(CENTRE - centre.y));
}

/**
 * As Fashion-MNIST was made from photographs (H. Xiao et al., 2017, section 2): bright on black, without the margin,
 * the longer edge 28 pixels, in the middle. There the background is white, and the negative is taken; here it is what
 * the image's edge has most of, and what stands out may be darker or lighter. What is 28 x 28 on black already is taken
 * as it is. Returns null where nothing stands out.
 */
export function clothing(grey) {
  const background = median(border(grey));
  if (grey.width === SIZE && grey.height === SIZE && background === 0) return grey;
  const above = sum(grey.values, (value) => Math.max(0, value - background));
  const below = sum(grey.values, (value) => Math.max(0, background - value));
  if (!above && !below) return null;
  const values = Float64Array.from(grey.values, (value) =>
    Math.max(0, below > above ? (background - value) / background : (value - background) / (255 - background)) * 255,
  );
  const lit = { ...grey, values };
  const box = bounds(lit, 24); // noise and shadows of the background stay below
  if (!box) return null;
  const scale = SIZE / Math.max(box.width, box.height);
  const small = resize(crop(lit, box), fitted(box.width * scale), fitted(box.height * scale));
  return placed(small, Math.floor((SIZE - small.width) / 2), Math.floor((SIZE - small.height) / 2));
}

/** The grey levels as the `images` signature takes them: rows of pixels of one channel. */
export function asInstance(image) {
  return Array.from({ length: image.height }, (_, y) =>
    Array.from({ length: image.width }, (_, x) => [image.values[y * image.width + x]]),
  );
}

/** The smallest box around everything brighter than `threshold`; null where nothing is. */
function bounds({ width, height, values }, threshold) {
  let [left, top, right, bottom] = [width, height, -1, -1];
  for (let y = 0; y < height; y++) {
    for (let x = 0; x < width; x++) {
      if (values[y * width + x] <= threshold) continue;
      left = Math.min(left, x);
      right = Math.max(right, x);
      top = Math.min(top, y);
      bottom = y;
    }
  }
  return right < 0 ? null : { left, top, width: right - left + 1, height: bottom - top + 1 };
}

function crop(image, { left, top, width, height }) {
  const values = new Float64Array(width * height);
  for (let y = 0; y < height; y++) {
    const start = (top + y) * image.width + left;
    values.set(image.values.slice(start, start + width), y * width);
  }
  return { width, height, values };
}

function fitted(length) {
  return Math.max(1, Math.round(length));
}

/** Each new pixel is the mean of what it covers, parts of pixels included: that is the anti-aliasing. */
function resize(image, width, height) {
  return transposed(resizedRows(transposed(resizedRows(image, width)), height));
}

function resizedRows(image, width) {
  const values = new Float64Array(width * image.height);
  const step = image.width / width;
  for (let x = 0; x < width; x++) {
    const [from, to] = [x * step, (x + 1) * step];
    for (let source = Math.floor(from); source < Math.min(Math.ceil(to), image.width); source++) {
      const share = (Math.min(to, source + 1) - Math.max(from, source)) / step;
      for (let y = 0; y < image.height; y++) values[y * width + x] += share * image.values[y * image.width + source];
    }
  }
  return { width, height: image.height, values };
}

function transposed({ width, height, values }) {
  return {
    width: height,
    height: width,
    values: values.map((_, index) => values[(index % height) * width + Math.floor(index / height)]),
  };
}

/** In pixels, from the middle of the first one. */
function centreOfMass({ width, values }) {
  let [mass, x, y] = [0, 0, 0];
  values.forEach((value, index) => {
    mass += value;
    x += value * (index % width);
    y += value * Math.floor(index / width);
  });
  return { x: x / mass, y: y / mass };
}

/** On a black 28 x 28 image, with whole grey levels; what would lie outside is cut off. */
function placed({ width, height, values }, left, top) {
  const image = { width: SIZE, height: SIZE, values: new Uint8Array(SIZE * SIZE) };
  for (let y = Math.max(0, -top); y < Math.min(height, SIZE - top); y++) {
    for (let x = Math.max(0, -left); x < Math.min(width, SIZE - left); x++) {
      image.values[(top + y) * SIZE + left + x] = Math.round(values[y * width + x]);
    }
  }
  return image;
}

function sum(values, of) {
  return values.reduce((total, value) => total + of(value), 0);
}

function border({ width, height, values }) {
  const last = (height - 1) * width;
  const rows = [...values.slice(0, width), ...values.slice(last)];
  for (let start = 0; start <= last; start += width) rows.push(values[start], values[start + width - 1]);
  return rows;
}

function median(values) {
  return values.sort((a, b) => a - b)[Math.floor(values.length / 2)];
}
