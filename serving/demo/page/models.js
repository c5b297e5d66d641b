// The server: which models there are, and the predict call that any REST client makes.

/** What the page needs to know of each model: {name, input, class_names}. */
export async function servedModels() {
  return (await answerOf("models.json")).models;
}

/** Where a model answers, from this page. */
export function predictPath(name) {
  return `v1/models/${encodeURIComponent(name)}:predict`;
}

/** Asks a model; `instance` is one image. Returns {probabilities, classes, labels}. Raises Error with words for people. */
export async function predict(name, instance) {
  const body = JSON.stringify({ signature_name: "images", instances: [instance] });
  const answer = await answerOf(`../${predictPath(name)}`, { method: "POST", body });
  return answer.predictions[0];
}

async function answerOf(url, options) {
  let response;
  try {
    response = await fetch(url, options);
  } catch {
    throw new Error("The server does not answer. Is `mnist-tfx serve --demo` still running?");
  }
  const answer = await response.json().catch(() => ({}));
  if (!response.ok) throw new Error(answer.error ?? `The server answered with status ${response.status}.`);
  return answer;
}
