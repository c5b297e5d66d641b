// An image file that is dropped, pasted or chosen, shown on a canvas.

const LONGEST = 560; // pixels of the longer edge that are looked at; the model gets 28

export class Photo {
  #canvas;
  /** Whether there is one. */
  shown = false;

  /** `zone` is where files may be dropped; `input` chooses them; `onChange` hears of a new image, `onProblem` of why not. */
  constructor({ canvas, zone, input, onChange, onProblem }) {
    this.#canvas = canvas;
    const take = async (files) => {
      const file = [...files].find((one) => one.type.startsWith("image/"));
      if (!file) return onProblem("That is no image: drop or choose a PNG, JPEG or WebP file.");
      try {
        await this.#show(file);
      } catch {
        return onProblem(`${file.name} cannot be read as an image: try a PNG, JPEG or WebP file.`);
      }
      onChange();
    };
    input.addEventListener("change", () => {
      if (input.files.length) take(input.files);
      input.value = ""; // the same file may be chosen again
    });
    for (const kind of ["dragenter", "dragover"]) {
      zone.addEventListener(kind, (event) => {
        event.preventDefault();
        zone.classList.add("over");
      });
    }
    for (const kind of ["dragleave", "drop"]) zone.addEventListener(kind, () => zone.classList.remove("over"));
    zone.addEventListener("drop", (event) => {
      event.preventDefault();
      take(event.dataTransfer.files);
    });
    for (const kind of ["dragover", "drop"]) {
      addEventListener(kind, (event) => event.preventDefault()); // a file that misses must not replace the page
    }
    document.addEventListener("paste", (event) => {
      if (!zone.closest("[hidden]") && event.clipboardData.files.length) take(event.clipboardData.files);
    });
  }

  /** Forgets the image. */
  clear() {
    this.shown = false;
    this.#canvas.hidden = true;
  }

  /** Its grey levels: {width, height, values}, 0 to 255. */
  grey() {
    const { width, height } = this.#canvas;
    const rgba = this.#canvas.getContext("2d").getImageData(0, 0, width, height).data;
    const values = new Float64Array(width * height);
    for (let index = 0; index < values.length; index++) {
      const [red, green, blue] = rgba.subarray(4 * index);
      values[index] = Math.round(0.299 * red + 0.587 * green + 0.114 * blue); // ITU-R BT.601
    }
    return { width, height, values };
  }

  async #show(file) {
    const bitmap = await createImageBitmap(file);
    const scale = Math.min(1, LONGEST / Math.max(bitmap.width, bitmap.height));
    const [width, height] = [bitmap.width, bitmap.height].map((edge) => Math.max(1, Math.round(edge * scale)));
    Object.assign(this.#canvas, { width, height });
    const context = this.#canvas.getContext("2d", { willReadFrequently: true });
    context.fillStyle = "white"; // behind what is transparent
    context.fillRect(0, 0, width, height);
    context.imageSmoothingQuality = "high";
    context.drawImage(bitmap, 0, 0, width, height);
    bitmap.close();
    this.#canvas.hidden = false;
    this.shown = true;
  }
}
