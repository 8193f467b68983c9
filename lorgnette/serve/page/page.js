// The page: one conversation with the server that it came from. What the model says is shown as text, never as HTML, so
// that no answer can run a script or load a picture from elsewhere.

const find = (id) => document.getElementById(id);
const KINDS = ["image/png", "image/jpeg", "image/webp", "image/gif"]; // what the server reads; others become PNG
const messages = []; // {role, text, pictures: [{url, name}], facts, look}
let pictures = []; // of the next question
let running = null; // AbortController of the answer on its way
let model = "";

function make(tag, values = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(values)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "class" || name === "role" || name.includes("-")) element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

function tell(words) {
  find("status").textContent = words;
}

// --- the server -----------------------------------------------------------------------------------------------------

function headers() {
  const key = sessionStorage.getItem("key");
  return { "Content-Type": "application/json", ...(key ? { Authorization: `Bearer ${key}` } : {}) };
}

async function call(path, options = {}) {
  for (;;) {
    const response = await fetch(path, { ...options, headers: headers() });
    if (response.ok) return response;
    let said = `the server answers ${response.status}`;
    try {
      said = (await response.json()).error.message;
    } catch {
      // no JSON: a proxy's answer
    }
    if (response.status !== 401) throw new Error(said);
    await askForKey(sessionStorage.getItem("key") ? said : "");
  }
}

function askForKey(said) {
  const dialog = find("keys");
  find("wrong").textContent = said;
  return new Promise((resolve) => {
    dialog.addEventListener(
      "close",
      () => {
        sessionStorage.setItem("key", find("key").value.trim());
        find("key").value = "";
        resolve();
      },
      { once: true },
    );
    if (!dialog.open) dialog.showModal();
  });
}

async function* events(response) {
  const decoder = new TextDecoder();
  let rest = "";
  const reader = response.body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += decoder.decode(value, { stream: true });
    const parts = rest.split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      if (part.startsWith("data: ") && part !== "data: [DONE]") yield JSON.parse(part.slice(6));
    }
  }
}

// --- requests -------------------------------------------------------------------------------------------------------

function number(id) {
  const text = find(id).value.trim();
  return text === "" ? undefined : Number(text);
}

function asked(list) {
  const detail = find("detail").value;
  return list.map(({ role, text, pictures: shown }) => ({
    role,
    content: shown?.length
      ? [
          ...shown.map(({ url }) => ({ type: "image_url", image_url: detail ? { url, detail } : { url } })),
          { type: "text", text },
        ]
      : text,
  }));
}

function body(list) {
  const request = { model, messages: asked(list), stream: true, stream_options: { include_usage: true } };
  const given = { temperature: number("temperature"), seed: number("seed"), max_completion_tokens: number("most") };
  for (const [name, value] of Object.entries(given)) if (value !== undefined) request[name] = value;
  const schema = find("schema").value.trim();
  if (schema) {
    try {
      request.response_format = { type: "json_schema", json_schema: { name: "answer", schema: JSON.parse(schema) } };
    } catch (error) {
      throw new Error(`JSON schema: ${error.message}`);
    }
  }
  return request;
}

function curl(list) {
  const request = { ...body(list) };
  delete request.stream;
  delete request.stream_options;
  const key = sessionStorage.getItem("key") ? `-H "Authorization: Bearer $LORGNETTE_API_KEY" ` : "";
  // by standard input: a picture is longer than an argument may be
  const type = "-H 'Content-Type: application/json'";
  return `curl ${location.origin}/v1/chat/completions ${key}${type} -d @- <<'END'\n${JSON.stringify(request)}\nEND`;
}

async function answer() {
  if (running) return;
  let request;
  try {
    request = body(messages);
  } catch (error) {
    tell(error.message);
    return;
  }
  tell("");
  const before = [...messages];
  const one = { role: "assistant", text: "", pictures: [], facts: "" };
  messages.push(one);
  const view = draw(one);
  running = new AbortController();
  busy(true);
  try {
    const response = await call("/v1/chat/completions", {
      method: "POST",
      body: JSON.stringify(request),
      signal: running.signal,
    });
    const seed = response.headers.get("x-lorgnette-seed");
    let finish = "";
    for await (const event of events(response)) {
      if (event.error) throw new Error(event.error.message);
      const choice = event.choices[0];
      one.text += choice?.delta.content ?? "";
      finish = choice?.finish_reason ?? finish;
      if (event.usage) one.facts = facts(event.usage, before, finish, seed);
      view.said.textContent = one.text;
    }
  } catch (error) {
    if (error.name === "AbortError") one.facts = "Stopped.";
    else tell(error.message);
  }
  running = null;
  busy(false);
  if (!one.text && !one.facts) messages.pop();
  drawAll();
  find("text").focus();
}

function facts(usage, list, finish, seed) {
  const details = usage.prompt_tokens_details;
  const shown = list.flatMap(({ pictures: own }) => own ?? []);
  const images = (details.images ?? []).map((image, at) => {
    const crops = image.crops === 1 ? "1 crop" : `${image.crops} crops`;
    const name = shown[at]?.name ?? `picture ${at + 1}`;
    return `${name}: ${image.tokens} tokens, ${crops}${image.cached ? ", cached" : ""}`;
  });
  const cached = details.cached_tokens ? ` (${details.cached_tokens} cached)` : "";
  const ended = finish === "length" ? ", cut at the limit" : "";
  const prompt = `Prompt ${usage.prompt_tokens} tokens${cached}`;
  return [`${prompt}, answer ${usage.completion_tokens}${ended}, seed ${seed}`, ...images].join("; ");
}

function busy(is) {
  find("send").disabled = is;
  find("stop").hidden = !is;
  find("log").setAttribute("aria-busy", String(is));
}

// --- the conversation -----------------------------------------------------------------------------------------------

function draw(one) {
  const at = messages.indexOf(one);
  const said = make("p", { class: "said", textContent: one.text });
  const name = one.role === "user" ? "You" : "Model";
  const article = make("article", { class: one.role, "aria-label": name }, make("h3", { textContent: name }));
  if (one.pictures?.length) {
    const shown = one.pictures.map((picture, order) =>
      make(
        "figure",
        {},
        make("span", { class: "overlay" }, make("img", { src: picture.url, alt: picture.name }), ...heat(at, order)),
        make("figcaption", { textContent: picture.name }),
      ),
    );
    article.append(make("div", { class: "shown" }, ...shown));
  }
  article.append(said);
  if (one.facts) article.append(make("p", { class: "facts", textContent: one.facts }));
  if (one.look) article.append(...words(one));
  if (!running || one.role === "user") article.append(tools(one));
  find("log").append(article);
  article.scrollIntoView({ block: "nearest" });
  return { article, said };
}

function drawAll() {
  find("log").replaceChildren();
  for (const one of messages) draw(one);
}

function tools(one) {
  const bar = make("div", { class: "tools", role: "group", "aria-label": "Actions" });
  const button = (label, onclick) => bar.append(make("button", { type: "button", textContent: label, onclick }));
  const at = messages.indexOf(one);
  if (one.role === "user") {
    button("Edit", () => {
      if (running) return;
      messages.length = at;
      pictures = one.pictures;
      find("text").value = one.text;
      drawAll();
      drawPictures();
      find("text").focus();
    });
    button("Send again", () => {
      if (running) return;
      messages.length = at + 1;
      drawAll();
      answer();
    });
    button("Copy as curl", async () => {
      try {
        await copy(curl(messages.slice(0, at + 1)));
        tell("The command is on the clipboard.");
      } catch (error) {
        tell(error.message);
      }
    });
  } else if (one.text && messages.slice(0, at).some(({ pictures: own }) => own?.length)) {
    button(one.look ? "Hide where it looked" : "Where did it look?", () => {
      if (one.look) {
        one.look = null;
        drawAll();
      } else look(one);
    });
  }
  return bar;
}

async function copy(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const area = make("textarea", { value: text }); // pages of http have no clipboard but on this machine
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

// --- where it looked ------------------------------------------------------------------------------------------------

async function look(one) {
  if (running) return;
  const before = messages.slice(0, messages.indexOf(one));
  running = new AbortController();
  busy(true);
  tell("Looking: the picture is shown again without each of its parts …");
  try {
    const request = { model, messages: asked(before), answer: one.text.slice(0, 4096) };
    const response = await call("/v1/look", {
      method: "POST",
      body: JSON.stringify(request),
      signal: running.signal,
    });
    for (const other of messages) other.look = null;
    one.look = { found: await response.json(), word: -1, opacity: 0.7 };
    tell("");
  } catch (error) {
    tell(error.name === "AbortError" ? "Stopped." : error.message);
  }
  running = null;
  busy(false);
  drawAll();
}

function words(one) {
  const { found } = one.look;
  const choose = (word) => {
    one.look.word = word;
    drawAll();
    find("log").querySelector('.words [aria-pressed="true"]')?.focus();
  };
  const button = (label, word, title) =>
    make("button", {
      type: "button",
      textContent: label,
      title,
      "aria-pressed": String(one.look.word === word),
      onclick: () => choose(word),
    });
  const each = found.words.map((word, at) =>
    button(word.text || "·", at, `probability ${Math.exp(word.logprob).toFixed(3)}`),
  );
  const slider = make("input", {
    type: "range",
    min: 0,
    max: 1,
    step: 0.05,
    value: one.look.opacity,
    oninput: (event) => {
      one.look.opacity = Number(event.target.value);
      for (const canvas of find("log").querySelectorAll("canvas")) canvas.style.opacity = one.look.opacity;
    },
  });
  return [
    make("p", { class: found.says_something ? "facts" : "nothing", textContent: found.sentence }),
    make("p", { class: found.blind > 0 ? "facts" : "nothing", textContent: found.blind_sentence }),
    make(
      "div",
      { class: "words", role: "group", "aria-label": "Words of the answer" },
      button("whole answer", -1, "all words together"),
      ...each,
    ),
    make("label", { textContent: "Strength of the overlay " }, slider),
  ];
}

function heat(message, order) {
  const one = messages.find(({ look: looked }) => looked);
  if (!one || messages.indexOf(one) < message) return [];
  const earlier = messages.slice(0, message).reduce((count, { pictures: own }) => count + (own?.length ?? 0), 0);
  const { found, word, opacity } = one.look;
  const map = (word < 0 ? found.maps : found.words[word].maps)[earlier + order];
  if (!map) return [];
  const most = Math.max(...map.values, 0);
  const canvas = make("canvas", { width: map.width, height: map.height, role: "img" });
  canvas.setAttribute("aria-label", `Where the answer came from: strongest ${strongest(map)}`);
  const context = canvas.getContext("2d");
  const pixels = context.createImageData(map.width, map.height);
  map.values.forEach((value, at) => {
    const share = most > 0 ? Math.min(Math.max(value / most, 0), 1) : 0;
    // dark where it did not look, warm where it did
    const warm = [40 + 215 * share, 30 + 110 * share, 30, 150 + 50 * share];
    pixels.data.set(share > 0 ? warm : [20, 20, 25, 170], 4 * at);
  });
  context.putImageData(pixels, 0, 0);
  canvas.style.opacity = opacity;
  return [canvas];
}

function strongest({ values, width, height }) {
  const at = values.indexOf(Math.max(...values));
  const down = ["top", "middle", "bottom"][Math.min(Math.floor((3 * Math.floor(at / width)) / height), 2)];
  const along = ["left", "centre", "right"][Math.min(Math.floor((3 * (at % width)) / width), 2)];
  return `at the ${down} ${along}`;
}

// --- pictures of the next question ----------------------------------------------------------------------------------

async function add(files) {
  for (const file of files) {
    if (!file.type.startsWith("image/")) {
      tell(`${file.name}: is no picture`);
      continue;
    }
    try {
      const readable = KINDS.includes(file.type) ? file : await asPng(file);
      pictures.push({ url: await dataUrl(readable), name: file.name || "pasted" });
    } catch {
      tell(`${file.name}: this browser cannot read it`);
    }
  }
  drawPictures();
}

function dataUrl(blob) {
  return new Promise((resolve, reject) => {
    const reader = new FileReader();
    reader.onload = () => resolve(reader.result);
    reader.onerror = reject;
    reader.readAsDataURL(blob);
  });
}

async function asPng(file) {
  const bitmap = await createImageBitmap(file);
  const canvas = make("canvas", { width: bitmap.width, height: bitmap.height });
  canvas.getContext("2d").drawImage(bitmap, 0, 0);
  return new Promise((resolve) => canvas.toBlob(resolve, "image/png"));
}

function drawPictures() {
  find("pictures").replaceChildren(
    ...pictures.map((picture, at) =>
      make(
        "li",
        {},
        make("img", { src: picture.url, alt: picture.name }),
        make("button", {
          type: "button",
          textContent: "×",
          "aria-label": `Remove ${picture.name}`,
          onclick: () => {
            pictures = pictures.filter((_, other) => other !== at);
            drawPictures();
            find("text").focus();
          },
        }),
      ),
    ),
  );
}

// --- what people do -------------------------------------------------------------------------------------------------

find("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = find("text").value;
  if (running || (!text.trim() && !pictures.length)) return;
  messages.push({ role: "user", text, pictures });
  pictures = [];
  find("text").value = "";
  drawPictures();
  drawAll();
  answer();
});
find("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    find("ask").requestSubmit();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") running?.abort();
});
find("stop").addEventListener("click", () => running?.abort());
find("new").addEventListener("click", () => {
  running?.abort();
  messages.length = 0;
  pictures = [];
  tell("");
  drawPictures();
  drawAll();
  find("text").focus();
});
find("add").addEventListener("click", () => find("files").click());
find("files").addEventListener("change", async (event) => {
  await add(event.target.files);
  event.target.value = "";
});
document.addEventListener("paste", (event) => {
  if (event.clipboardData.files.length) {
    event.preventDefault();
    add(event.clipboardData.files);
  }
});
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  find("drop").classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) find("drop").classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  find("drop").classList.remove("over");
  add(event.dataTransfer.files);
});

try {
  model = (await (await call("/v1/models")).json()).data[0].id;
  find("model").textContent = model;
  document.title = `${model} - lorgnette`;
  document.documentElement.dataset.ready = "yes";
} catch (error) {
  tell(error.message);
}
