// Brings the parts together: what is drawn or dropped goes to the model at once, one request at a time.

import { Answer } from "./answer.js";
import { Drawing } from "./drawing.js";
import { predict, predictPath, servedModels } from "./models.js";
import { Photo } from "./photo.js";
import { asInstance, clothing, digit, SIZE } from "./preprocess.js";

const RETRY = 1000; // milliseconds, while the server still loads its models

const at = (id) => document.getElementById(id);
const answer = new Answer(at("bars"), at("headline"), at("spoken"));
const drawing = new Drawing(at("paper"), at("pen"), changed);
const photo = new Photo({
  canvas: at("photo"),
  zone: at("zone"),
  input: at("file"),
  onChange: changed,
  onProblem: problem,
});
const INPUTS = {
  drawing: { read: () => digit(drawing.ink()), invite: () => "Draw a digit." },
  photo: {
    read: () => (photo.shown ? clothing(photo.grey()) : null),
    invite: () => (photo.shown ? "Nothing stands out in this image." : "Drop an image of clothing."),
  },
};

let model = null; // the chosen one
let asking = false; // a request is on its way
let stale = false; // something changed since it left

async function begin() {
  let models = [];
  try {
    models = await servedModels();
    problem(models.length ? "" : "The server has no model of 28 x 28 images ready yet. Waiting for it …");
  } catch (error) {
    problem(error.message);
  }
  if (!models.length) return setTimeout(begin, RETRY);
  at("choices").replaceChildren(...models.map(choice));
  at("models").hidden = models.length < 2;
  choose(models.find((one) => `#${one.name}` === location.hash) ?? models[0]);
}

function choice(one) {
  const label = document.createElement("label");
  const radio = Object.assign(document.createElement("input"), { type: "radio", name: "model", value: one.name });
  radio.addEventListener("change", () => choose(one));
  label.append(radio, one.name);
  return label;
}

function choose(one) {
  model = one;
  history.replaceState(null, "", `#${one.name}`);
  for (const radio of at("choices").querySelectorAll("input")) radio.checked = radio.value === one.name;
  for (const part of document.querySelectorAll("[data-input]")) part.hidden = part.dataset.input !== one.input;
  at("call").textContent =
    `curl --data '{"signature_name": "images", "instances": [...]}' ` +
    new URL(`../${predictPath(one.name)}`, location.href).href;
  answer.begin(one.class_names ?? Array.from({ length: 10 }, (_, index) => `class ${index}`));
  changed();
}

/** Asks the model about what is there now; while an answer is awaited, only the newest state waits. */
async function changed() {
  if (asking || !model) {
    stale = true;
    return;
  }
  asking = true;
  at("bars").ariaBusy = "true";
  do {
    stale = false;
    await nextFrame();
    await ask(model);
  } while (stale);
  asking = false;
  at("bars").ariaBusy = "false";
}

async function ask(asked) {
  const { read, invite } = INPUTS[asked.input];
  const image = read();
  showSeen(image);
  if (!image) return answer.clear(invite());
  try {
    const { probabilities, classes, labels } = await predict(asked.name, asInstance(image));
    if (asked === model) answer.show(probabilities, classes, labels);
    problem("");
  } catch (error) {
    problem(error.message);
  }
}

/** Draws the grey levels that the model gets. */
function showSeen(image) {
  const context = at("seen").getContext("2d");
  context.fillStyle = "black";
  context.fillRect(0, 0, SIZE, SIZE);
  if (!image) return;
  const pixels = context.createImageData(SIZE, SIZE);
  image.values.forEach((value, index) => pixels.data.set([value, value, value, 255], 4 * index));
  context.putImageData(pixels, 0, 0);
}

function problem(words) {
  at("problem").textContent = words;
}

/** Also comes in a tab that is not looked at. */
function nextFrame() {
  return new Promise((resolve) => {
    requestAnimationFrame(resolve);
    setTimeout(resolve, 50);
  });
}

at("clear").addEventListener("click", () => {
  photo.clear();
  drawing.clear();
  problem("");
});
addEventListener("hashchange", () => {
  const radio = [...at("choices").querySelectorAll("input")].find((one) => `#${one.value}` === location.hash);
  if (radio && !radio.checked) radio.click();
});
begin();
