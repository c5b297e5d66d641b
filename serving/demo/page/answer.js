// What the model says, for the eye (bars that move) and for the ear (one sentence, when the hand rests).

const RESTED = 700; // milliseconds without a change before the answer is read out

export class Answer {
  #bars;
  #headline;
  #spoken;
  #names = [];
  #timer = 0;

  /** `bars` is a list, `headline` the likeliest class, `spoken` a live region. */
  constructor(bars, headline, spoken) {
    this.#bars = bars;
    this.#headline = headline;
    this.#spoken = spoken;
  }

  /** Makes a row for each class. */
  begin(names) {
    this.#names = [...names];
    this.#bars.replaceChildren(...names.map(row));
    this.clear("");
  }

  /** Shows that nothing was asked; `words` say what to do. */
  clear(words) {
    this.#fill(this.#names.map(() => 0), -1);
    this.#bars.classList.add("empty");
    this.#headline.textContent = words;
    this.#headline.classList.remove("found");
    this.#say(words);
  }

  /** Shows probabilities; `label` is what the model calls the likeliest. */
  show(probabilities, best, label) {
    if (probabilities.length !== this.#names.length) this.begin(probabilities.map((_, index) => `class ${index}`));
    this.#names[best] = label;
    this.#bars.classList.remove("empty");
    this.#fill(probabilities, best);
    this.#headline.textContent = label;
    this.#headline.classList.add("found");
    const order = probabilities.map((_, index) => index).sort((a, b) => probabilities[b] - probabilities[a]);
    const [first, second] = order.map((index) => `${this.#names[index]}, ${percent(probabilities[index])}`);
    this.#say(`Most likely ${first}. Then ${second}.`);
  }

  #fill(probabilities, best) {
    [...this.#bars.children].forEach((item, index) => {
      const [name, track, share] = item.children;
      name.textContent = this.#names[index];
      track.firstChild.style.width = `${100 * probabilities[index]}%`;
      share.textContent = percent(probabilities[index]);
      item.classList.toggle("best", index === best);
    });
  }

  #say(words) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => (this.#spoken.textContent = words), RESTED);
  }
}

function row() {
  const item = document.createElement("li");
  const [name, track, share] = ["span", "span", "span"].map((tag) => document.createElement(tag));
  name.className = "name";
  track.className = "track";
  track.append(document.createElement("span"));
  share.className = "share";
  item.append(name, track, share);
  return item;
}

function percent(probability) {
  const share = 100 * probability;
  return share > 0 && share < 1 ? "< 1 %" : `${Math.round(share)} %`;
}
