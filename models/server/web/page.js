"use strict";
// The page of `pairmill serve`: asks /v1/images for a job, follows its events, keeps a history in this browser.

const $ = (id) => document.getElementById(id);
const HISTORY = "pairmill-history";
const RUNNING = "pairmill-job"; // for this tab alone
const KEPT = 20;
let job = null; // {id, text, seed, events, timer, started}

// --- asking ---------------------------------------------------------------------------------------------------------

$("count").addEventListener("input", () => { $("count-shown").value = $("count").value; });
$("form").addEventListener("submit", (event) => { event.preventDefault(); if (accepted()) generate(); });
$("cancel").addEventListener("click", cancel);
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape" && job && !$("large").open) cancel();
});

// The browser cannot focus a field inside closed settings, and would then say nothing.
function accepted() {
  const refused = [...$("form").elements].find((field) => field.willValidate && !field.validity.valid);
  if (!refused) return true;
  if ($("more").contains(refused)) $("more").open = true;
  return refused.reportValidity(); // focuses it and shows the browser's message beside it
}

function settings() {
  const number = (id, otherwise) => $(id).value.trim() === "" ? otherwise : Number($(id).value);
  return {
    text: $("text").value, num_images: Number($("count").value), seed: number("seed", null),
    temperature: number("temperature", null), top_k: number("top-k", null), top_p: number("top-p", null),
    guidance: number("guidance", null), // null: the model's own
  };
}

async function generate() {
  if (job) return;
  const asked = settings();
  fail("");
  busy(true);
  let answer;
  try {
    answer = await fetch("/v1/images", {
      method: "POST", headers: {"Content-Type": "application/json"}, body: JSON.stringify(asked),
    });
  } catch {
    busy(false);
    return fail("The server does not answer.");
  }
  const body = await answer.json();
  if (!answer.ok) {
    busy(false);
    const wait = answer.headers.get("Retry-After");
    return fail(wait ? `Too many are drawing just now: try again in ${wait} seconds.` : reason(body));
  }
  follow(body, asked);
}

// After a reload: the job of before, if the server still knows it.
async function resume() {
  const running = readJson(sessionStorage, RUNNING);
  if (!running) return;
  busy(true);
  const answer = await fetch(`/v1/images/${running.id}`).catch(() => null);
  if (!answer || !answer.ok) {
    busy(false);
    if (!answer) return fail("The server does not answer.");
    writeJson(sessionStorage, RUNNING, null);
    return fail("The server no longer knows the job that ran before the reload.");
  }
  $("text").value = running.asked.text;
  follow(await answer.json(), running.asked);
}

function reason(body) {
  if (typeof body.detail === "string") return body.detail;
  return body.detail.map((fault) => `${fault.loc.at(-1)}: ${fault.msg}`).join("; ");
}

function follow(started, asked) {
  $("pictures").replaceChildren(...started.images.map((_, i) => tile(i)));
  const current = job = {id: started.id, asked: {...asked, ...started.sampling, seed: started.seed}, began: null};
  writeJson(sessionStorage, RUNNING, {id: started.id, asked: current.asked});
  current.events = new EventSource(`/v1/images/${started.id}/events`);
  current.timer = setInterval(() => tell(current), 100);
  const seen = (event) => { current.state = JSON.parse(event.data); show(current); };
  current.events.addEventListener("progress", seen);
  current.events.addEventListener("preview", (event) => {
    const {image, url} = JSON.parse(event.data);
    $("pictures").children[image].querySelector("img").src = url;
  });
  for (const end of ["done", "cancelled", "failed"]) {
    current.events.addEventListener(end, (event) => { seen(event); finish(current, end); });
  }
  current.events.onerror = () => {
    if (current.events.readyState === EventSource.CLOSED) finish(current, "lost");
  };
}

async function cancel() {
  if (job) await fetch(`/v1/images/${job.id}`, {method: "DELETE"}).catch(() => fail("The server does not answer."));
}

function finish(current, end) {
  clearInterval(current.timer);
  current.events.close();
  job = null;
  busy(false);
  if (end !== "lost") writeJson(sessionStorage, RUNNING, null); // a reload may find it again
  const drawn = current.state ? current.state.images.filter((image) => image.url).length : 0;
  for (const figure of $("pictures").querySelectorAll("figure[aria-busy=true]")) figure.remove();
  if (end === "done") {
    tellDone(current.state.seconds, drawn, current.asked.seed);
    remember(current);
  } else if (end === "cancelled") {
    $("status").textContent = drawn ? `Cancelled; ${drawn} drawn before that.` : "Cancelled.";
  } else {
    $("status").textContent = "";
    fail(end === "failed" ? "Drawing failed; the server's log says why." : "The connection to the server is lost.");
  }
}

function busy(is) {
  $("generate").hidden = is;
  $("cancel").hidden = !is;
  if (is) $("status").textContent = "Asking …";
  // whoever pressed Enter goes on from the same field
  if (document.activeElement === document.body) $("text").focus();
}

function fail(text) {
  $("error").textContent = text;
  $("error").hidden = !text;
  if (text) $("status").textContent = "";
}

// --- showing --------------------------------------------------------------------------------------------------------

function element(name, properties = {}, ...children) {
  const made = Object.assign(document.createElement(name), properties);
  made.append(...children);
  return made;
}

function tile(number) {
  const figure = element("figure", {},
    element("button", {type: "button", className: "frame", disabled: true, ariaLabel: `Picture ${number + 1}, being drawn`},
      element("img", {alt: "", hidden: true})),
    element("figcaption", {}, element("progress", {max: 1, value: 0, ariaLabel: `Picture ${number + 1}`})));
  figure.setAttribute("aria-busy", "true");
  figure.querySelector("img").addEventListener("load", (event) => { event.target.hidden = false; });
  return figure;
}

function show(current) {
  if (current.state.status === "drawing" && current.began === null) {
    current.began = performance.now() - 1000 * current.state.seconds;
  }
  current.state.images.forEach((image, i) => {
    const figure = $("pictures").children[i];
    if (!figure || figure.getAttribute("aria-busy") !== "true") return;
    if (image.url) complete(figure, i, image.url, current.asked);
    else figure.querySelector("progress").value = image.progress;
  });
  tell(current);
}

function complete(figure, number, url, asked) {
  figure.setAttribute("aria-busy", "false");
  const frame = figure.querySelector(".frame"), name = fileName(asked, number);
  const image = frame.querySelector("img");
  image.src = url;
  image.alt = asked.text;
  frame.disabled = false;
  frame.ariaLabel = `Enlarge picture ${number + 1}`;
  frame.addEventListener("click", () => enlarge(url, name, asked));
  figure.querySelector("figcaption").replaceChildren(
    element("span", {textContent: `${number + 1}`}),
    element("a", {href: url, download: name, textContent: "Download", ariaLabel: `Download picture ${number + 1}`}));
}

function fileName(asked, number) {
  const words = asked.text.toLowerCase().replace(/[^\p{L}\p{N}]+/gu, "-").replace(/^-|-$/g, "").slice(0, 40);
  return `${words || "picture"}-${asked.seed}-${number}.png`;
}

function tell(current) {
  if (!current.state || current.state.status === "queued") {
    $("status").textContent = "Waiting for its turn …";
  } else if (current.state.status === "drawing") {
    const images = current.state.images, share = images.reduce((sum, image) => sum + image.progress, 0) / images.length;
    const seconds = (performance.now() - current.began) / 1000;
    const left = share > 0.05 ? `, about ${Math.ceil(seconds / share - seconds)} s left` : "";
    $("status").textContent = `Drawing: ${Math.round(100 * share)} %, ${seconds.toFixed(1)} s${left}`;
  }
}

function tellDone(seconds, drawn, seed) {
  const link = element("button", {type: "button", className: "seed", textContent: `seed ${seed}`,
    title: "Use this seed for the next pictures"});
  link.addEventListener("click", () => { $("seed").value = seed; $("more").open = true; $("seed").focus(); });
  $("status").replaceChildren(`${drawn} ${drawn === 1 ? "picture" : "pictures"} in ${seconds.toFixed(1)} s, `, link);
}

function enlarge(url, name, asked) {
  $("large-image").src = url;
  $("large-image").alt = asked.text;
  $("large-text").textContent = asked.text;
  Object.assign($("large-save"), {href: url, download: name});
  $("large").showModal();
}
$("large-close").addEventListener("click", () => $("large").close());
$("large").addEventListener("click", (event) => { if (event.target === $("large")) $("large").close(); });

// --- history --------------------------------------------------------------------------------------------------------

function readJson(storage, name) {
  try {
    return JSON.parse(storage.getItem(name));
  } catch {
    return null; // private windows may have no storage
  }
}

function writeJson(storage, name, value) {
  try {
    storage.setItem(name, JSON.stringify(value));
  } catch {
    // without storage the history and the job last as long as the page
  }
}

const past = () => readJson(localStorage, HISTORY) || [];

function keep(entries) {
  writeJson(localStorage, HISTORY, entries);
  list(entries);
}

async function remember(current) {
  const thumbs = await Promise.all(current.state.images.slice(0, 4).map((image) => thumbnail(image.url)));
  keep([{...current.asked, seconds: current.state.seconds, thumbs}, ...past()].slice(0, KEPT));
}

async function thumbnail(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  const canvas = element("canvas", {width: 80, height: 80});
  canvas.getContext("2d").drawImage(image, 0, 0, 80, 80);
  return canvas.toDataURL("image/jpeg", 0.8);
}

function list(entries) {
  $("past").hidden = !entries.length;
  $("history").replaceChildren(...entries.map((entry) => {
    const thumbs = element("span", {className: "thumbs"}, ...entry.thumbs.map((src) => element("img", {src, alt: ""})));
    const count = `${entry.num_images} ${entry.num_images === 1 ? "picture" : "pictures"}, seed ${entry.seed}`;
    const again = element("button", {type: "button", title: "Draw these pictures again"}, thumbs,
      element("span", {className: "words", textContent: entry.text}), element("small", {textContent: count}));
    again.addEventListener("click", () => restore(entry));
    return element("li", {}, again);
  }));
}

function restore(entry) {
  if (job) return;
  $("text").value = entry.text;
  $("count").value = $("count-shown").value = entry.num_images;
  const others = {seed: entry.seed, temperature: entry.temperature, "top-k": entry.top_k, "top-p": entry.top_p,
    guidance: entry.guidance};
  for (const [id, value] of Object.entries(others)) {
    $(id).value = value;
    if ($(id).validity.stepMismatch) $(id).step = "any"; // a model's default may lie between the steps
  }
  scrollTo({top: 0});
  generate();
}

$("forget").addEventListener("click", () => keep([]));
list(past());

// --- examples -------------------------------------------------------------------------------------------------------

function offer(prompts) {
  if (!prompts.length) return;
  $("text").placeholder = prompts[0];
  $("prompts").hidden = false;
  $("prompts").replaceChildren(...prompts.map((prompt) => {
    const button = element("button", {type: "button", textContent: prompt, title: "Use this text"});
    button.addEventListener("click", () => { $("text").value = prompt; $("text").focus(); });
    return button;
  }));
}

// --- what draws here ------------------------------------------------------------------------------------------------

fetch("/v1/model").then((answer) => answer.json()).then((model) => {
  $("count").max = model.max_images;
  $("count-shown").value = $("count").value;
  $("text").maxLength = model.max_text;
  $("temperature").placeholder = model.sampling.temperature;
  $("top-k").placeholder = model.sampling.top_k || "all";
  $("top-p").placeholder = model.sampling.top_p;
  $("guidance").placeholder = model.sampling.guidance;
  offer(model.prompts);
  for (const part of document.querySelectorAll(".guidance")) part.hidden = !model.guidance;
  const millions = (model.parameters / 1e6).toPrecision(3);
  $("model").textContent = `Drawn here by a model of ${millions} million parameters, ${model.image_size} px, ` +
    `fingerprint ${model.fingerprint.slice(0, 12)}.`;
}).catch(() => fail("The server does not answer."));
resume();
