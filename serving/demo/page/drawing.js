// The canvas to draw on, with mouse, finger, pen or keys. Ink is what is not transparent, whatever its colour.

const PEN = 1 / 11; // the line's width as a share of the canvas: as thick as MNIST's in its box
const STEP = 1 / 28; // how far an arrow key moves the pen

export class Drawing {
  #canvas;
  #context;
  #onChange;
  #last = null; // where the pointer's line is
  #pen = { x: 0.5, y: 0.5, down: false }; // of the keys
  #marker;

  /** `marker` is an element over the canvas that shows where the keys' pen is. */
  constructor(canvas, marker, onChange) {
    this.#canvas = canvas;
    this.#context = canvas.getContext("2d", { willReadFrequently: true });
    this.#marker = marker;
    this.#onChange = onChange;
    canvas.addEventListener("pointerdown", (event) => this.#start(event));
    canvas.addEventListener("pointermove", (event) => this.#move(event));
    for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => (this.#last = null));
    canvas.addEventListener("keydown", (event) => this.#key(event));
    canvas.addEventListener("blur", () => this.#showPen(false));
    this.#setInk();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.#recolour());
  }

  /** Takes all ink away. */
  clear() {
    this.#context.clearRect(0, 0, this.#canvas.width, this.#canvas.height);
    this.#onChange();
  }

  /** How much of each pixel is ink: {width, height, values}, 0 to 255. */
  ink() {
    const { width, height } = this.#canvas;
    const rgba = this.#context.getImageData(0, 0, width, height).data;
    const values = new Uint8Array(width * height);
    for (let index = 0; index < values.length; index++) values[index] = rgba[4 * index + 3];
    return { width, height, values };
  }

  #start(event) {
    if (!event.isPrimary || event.button !== 0) return;
    this.#canvas.setPointerCapture(event.pointerId);
    this.#last = this.#position(event);
    this.#line(this.#last, this.#last);
  }

  #move(event) {
    if (!this.#last || !event.isPrimary) return;
    const passed = event.getCoalescedEvents?.() ?? [];
    for (const one of passed.length ? passed : [event]) {
      const here = this.#position(one);
      this.#line(this.#last, here);
      this.#last = here;
    }
  }

  /** As shares of the canvas. */
  #position(event) {
    const box = this.#canvas.getBoundingClientRect();
    return { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
  }

  #line(from, to) {
    const { width, height } = this.#canvas;
    this.#context.beginPath();
    this.#context.moveTo(from.x * width, from.y * height);
    this.#context.lineTo(to.x * width, to.y * height);
    this.#context.stroke();
    this.#onChange();
  }

  #key(event) {
    const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [];
    if (dx !== undefined) {
      const from = { ...this.#pen };
      this.#pen.x = Math.min(1, Math.max(0, from.x + dx * STEP));
      this.#pen.y = Math.min(1, Math.max(0, from.y + dy * STEP));
      if (this.#pen.down) this.#line(from, this.#pen);
    } else if (event.key === " ") {
      this.#pen.down = !this.#pen.down;
      if (this.#pen.down) this.#line(this.#pen, this.#pen);
    } else if (event.key === "Delete" || event.key === "Backspace") {
      this.clear();
    } else {
      return;
    }
    event.preventDefault(); // the arrows must not scroll
    this.#showPen(true);
  }

  #showPen(shown) {
    if (!shown) this.#pen.down = false;
    this.#marker.hidden = !shown;
    this.#marker.classList.toggle("down", this.#pen.down);
    this.#marker.style.left = `${this.#pen.x * 100}%`;
    this.#marker.style.top = `${this.#pen.y * 100}%`;
  }

  #setInk() {
    const context = this.#context;
    context.lineWidth = this.#canvas.width * PEN;
    context.lineCap = context.lineJoin = "round";
    context.strokeStyle = context.fillStyle = getComputedStyle(this.#canvas).color;
  }

  #recolour() {
    this.#setInk();
    const context = this.#context;
    context.globalCompositeOperation = "source-in";
    context.fillRect(0, 0, this.#canvas.width, this.#canvas.height);
    context.globalCompositeOperation = "source-over";
  }
}
