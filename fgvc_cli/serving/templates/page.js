"use strict";

const SURE = 0.9; // probability from which the lowest class or group is named
const RETRIES = 10; // while the server is busy

const element = (id) => document.getElementById(id);
const percent = (value) => (100 * value).toFixed(1) + "\u00a0%";
let card = null; // what the server says of its model
let waiting = Promise.resolve(); // photographs are sent one after the other
let left = 0;

function message(text) {
  element("status").textContent = text;
}

/** Send one photograph; wait and try again while the server is busy. */
async function send(path, file) {
  for (let tried = 0; ; tried++) {
    const body = new FormData();
    body.append("image", file, file.name);
    let answer;
    try {
      answer = await fetch(path, { method: "POST", body });
    } catch {
      throw new Error("The server cannot be reached, or the photograph is too large for it.");
    }
    if (answer.ok) return answer;
    const { error } = await answer.json().catch(() => ({ error: `The server answered ${answer.status}.` }));
    if (answer.status !== 503 || tried === RETRIES) throw new Error(error);
    await new Promise((done) => setTimeout(done, 1000 * (Number(answer.headers.get("Retry-After")) || 2)));
  }
}

function row(name, probability) {
  const cells = document.createElement("tr");
  const head = document.createElement("th");
  const value = document.createElement("td");
  head.scope = "row";
  head.textContent = name;
  value.textContent = percent(probability);
  cells.append(head, value);
  const bars = document.createElement("tr");
  const cell = document.createElement("td");
  const bar = document.createElement("div");
  bars.className = "bar";
  bars.setAttribute("aria-hidden", "true");
  cell.colSpan = 2;
  bar.style.width = percent(probability).replace("\u00a0", "");
  cell.append(bar);
  bars.append(cell);
  return [cells, bars];
}

function show(item, prediction) {
  const best = prediction.classes[0];
  const answer = item.querySelector(".answer");
  answer.textContent = prediction.reason ? `Unknown (${prediction.reason})` : best.class;
  answer.classList.toggle("unknown", Boolean(prediction.reason));
  const rows = prediction.classes.flatMap((entry) => row(entry.class, entry.probability));
  item.querySelector("tbody").replaceChildren(...rows);
  const more = [];
  if (prediction.sure) {
    const { name, level, probability } = prediction.sure;
    more.push(name === null ? "Not sure of any group." : `Sure of ${name} (${level}), ${percent(probability)}.`);
  }
  if (prediction.set) {
    const names = prediction.set.map((entry) => entry.class).join(", ");
    more.push(`Prediction set: ${names || "empty"}.`);
  }
  item.querySelector(".more").textContent = more.join(" ");
}

function fail(item, text) {
  const answer = item.querySelector(".answer");
  answer.textContent = text;
  answer.classList.add("failed");
}

async function explain(item, file) {
  const button = item.querySelector("button");
  const figure = item.querySelector("figure");
  button.disabled = true;
  message(`Explaining ${file.name} …`);
  try {
    const picture = await (await send("explain?picture=map", file)).blob();
    const name = item.querySelector("tbody th").textContent;
    figure.querySelector("img").src = URL.createObjectURL(picture);
    figure.querySelector("img").alt = `Saliency map of ${file.name} for ${name}`;
    figure.querySelector("figcaption").textContent = `The brighter, the more it matters for ${name}.`;
    figure.hidden = false;
    figure.tabIndex = -1;
    figure.focus(); // the focus was on the button
    button.hidden = true;
    message(`Explained ${file.name}.`);
  } catch (error) {
    message(error.message);
    button.disabled = false;
  }
}

async function classify(item, file) {
  message(left > 1 ? `Classifying ${file.name}, ${left - 1} more to come …` : `Classifying ${file.name} …`);
  try {
    const limit = card.limits.max_upload;
    if (file.size > limit) throw new Error(`Larger than ${Math.floor(limit / 1e6)} MB: make it smaller.`);
    const query = new URLSearchParams({ top_k: 5 });
    if (card.levels.length) query.set("sure", SURE);
    if (card.sets) query.set("sets", "true");
    const answer = await (await send(`predict?${query}`, file)).json();
    show(item, answer.predictions[0]);
    const button = item.querySelector("button");
    button.hidden = card.explainers.length === 0;
    button.setAttribute("aria-label", `Show what it looks at in ${file.name}`);
    button.addEventListener("click", () => explain(item, file));
  } catch (error) {
    fail(item, error.message.replace(`${file.name}: `, ""));
  }
  left -= 1;
  if (!left) message("Done.");
}

function add(files) {
  const items = document.createDocumentFragment();
  for (const file of files) {
    const item = element("result").content.firstElementChild.cloneNode(true);
    const photo = item.querySelector(".photo");
    item.querySelector("h2").textContent = file.name;
    photo.src = URL.createObjectURL(file);
    photo.addEventListener("error", () => photo.remove()); // HEIC, which most browsers cannot show
    items.append(item);
    left += 1;
    waiting = waiting.then(() => classify(item, file));
  }
  element("results").prepend(items);
}

async function start() {
  try {
    card = await (await fetch("model")).json();
  } catch {
    message("The server cannot be reached.");
    return;
  }
  const count = card.classes.length;
  element("kicker").textContent = card.run;
  element("lede").textContent = `Tells ${count} ${count === 1 ? "class" : "classes"} apart.`;
  const parts = [card.backbone && `backbone ${card.backbone.name}`, card.head && `head ${card.head.name}`];
  parts.push(`images of ${card.image_size} px`, card.license && `weights under ${card.license}`);
  element("about").textContent = [...parts.filter(Boolean), `fgvc ${card.fgvc}`].join(", ") + ".";
  for (const name of card.classes) {
    const entry = document.createElement("li");
    entry.textContent = name;
    element("classes").append(entry);
  }
  const input = element("files");
  const area = document.querySelector(".choose");
  input.addEventListener("change", () => {
    add(input.files);
    input.value = ""; // so that the same photograph can be chosen again
  });
  for (const kind of ["dragenter", "dragover", "dragleave", "drop"]) {
    document.addEventListener(kind, (event) => {
      event.preventDefault();
      area.classList.toggle("over", kind === "dragenter" || kind === "dragover");
      if (kind === "drop") add([...event.dataTransfer.files]);
    });
  }
}

start();
