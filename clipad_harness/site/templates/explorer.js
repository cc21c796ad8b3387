"use strict";
(() => {
  const data = JSON.parse(document.getElementById("explorer-data").textContent);
  const at = (id) => document.getElementById(id);
  const state = { category: 0, image: 0, stop: Math.floor(0.65 * data.rates.length) };
  const SVG = "http://www.w3.org/2000/svg";
  const INFERNO = ["000004", "1b0c41", "4a0c6b", "781c6d", "a52c60", "cf4446", "ed6925", "fb9b06", "f7d13d", "fcffa4"]
    .map((hex) => [0, 2, 4].map((i) => parseInt(hex.slice(i, i + 2), 16)));
  const colour = (share) => {
    const place = Math.min(Math.max(share, 0), 1) * (INFERNO.length - 1);
    const low = Math.min(Math.floor(place), INFERNO.length - 2);
    return INFERNO[low].map((value, i) => value + (place - low) * (INFERNO[low + 1][i] - value));
  };
  const words = (text) => text.replaceAll("_", " ");
  const percent = (share) => `${(100 * share).toFixed(share < 0.01 ? 2 : 1)} %`;
  const number = (value) => Number(value.toPrecision(3)).toString();
  const make = (name, attributes = {}, children = []) => {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) {
      if (key === "text") made.textContent = value; else made.setAttribute(key, value);
    }
    made.append(...children);
    return made;
  };
  const draw = (name, attributes, parent) => {
    const made = document.createElementNS(SVG, name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    parent.append(made);
    return made;
  };
  const category = () => data.categories[state.category];
  const image = () => category().images[state.image];
  const shown = () => category().images.map((one, i) => [one, i]).filter(([one]) =>
    at("kind").value === "all" || (at("kind").value === "damaged") === (one.label === 1));

  const load = (uri) => new Promise((done, fail) => {
    const picture = new Image();
    picture.onload = () => done(picture);
    picture.onerror = () => fail(new Error("an image of this page cannot be decoded"));
    picture.src = uri;
  });
  const grey = async (uri) => {
    const picture = await load(uri);
    const canvas = make("canvas", { width: picture.width, height: picture.height });
    const context = canvas.getContext("2d");
    context.drawImage(picture, 0, 0);
    const pixels = context.getImageData(0, 0, picture.width, picture.height).data;
    return { width: picture.width, height: picture.height,
      values: Uint8Array.from({ length: pixels.length / 4 }, (_, i) => pixels[4 * i]) };
  };

  // The border of what is marked, along the edges of the pixels: dark under light is always seen.
  const outline = (canvas, grid, isMarked, light) => {
    const context = canvas.getContext("2d");
    const [x, y] = [canvas.width / grid.width, canvas.height / grid.height];
    const marked = (row, column) => row >= 0 && column >= 0 && row < grid.height && column < grid.width
      && isMarked(row * grid.width + column);
    context.beginPath();
    for (let row = 0; row <= grid.height; row++) {
      for (let column = 0; column <= grid.width; column++) {
        const here = marked(row, column);
        if (here !== marked(row - 1, column)) { context.moveTo(column * x, row * y); context.lineTo((column + 1) * x, row * y); }
        if (here !== marked(row, column - 1)) { context.moveTo(column * x, row * y); context.lineTo(column * x, (row + 1) * y); }
      }
    }
    context.lineCap = "round";
    for (const [width, style] of [[3.4, "#000"], [1.7, light]]) {
      context.lineWidth = width; context.strokeStyle = style; context.stroke();
    }
  };

  const histogram = (method, score, label) => {
    const svg = document.createElementNS(SVG, "svg");
    svg.setAttribute("viewBox", "0 0 240 62");
    svg.setAttribute("role", "img");
    svg.setAttribute("aria-label", label);
    const all = [...method.normal, ...method.damaged];
    const [low, high] = [Math.min(...all), Math.max(...all)];
    const bins = 24, place = (value) => high > low ? (value - low) / (high - low) : 0.5;
    const counts = ["normal", "damaged"].map((kind) => {
      const found = new Array(bins).fill(0);
      method[kind].forEach((value) => { found[Math.min(bins - 1, Math.floor(place(value) * bins))]++; });
      return found;
    });
    const most = Math.max(...counts.flat(), 1);
    ["normal", "damaged"].forEach((kind, i) => counts[i].forEach((count, bin) => {
      if (count) draw("rect", { class: kind, x: bin * 10 + 0.5 + 4.5 * i, width: 4.5, y: 60 - 52 * count / most, height: 52 * count / most }, svg);
    }));
    draw("line", { class: "here", x1: 240 * place(score), x2: 240 * place(score), y1: 2, y2: 60 }, svg);
    const ends = [low, high].map((value) => make("span", { text: number(value) }));
    return [svg, make("div", { class: "ends", "aria-hidden": "true" }, ends)];
  };

  const rank = (method, score, label) => {
    const others = label ? method.normal : method.damaged;
    const beaten = others.filter((value) => label ? value < score : value > score).length;
    return `${label ? "above" : "below"} ${beaten} of ${others.length} ${label ? "normal" : "damaged"} images`;
  };

  let loaded = null; // the decoded picture, mask and maps of the image that is shown
  const panels = [];
  const build = () => {
    const columns = [["Image", null], ...data.methods.map((label, i) => [label, i])];
    at("panels").replaceChildren(...columns.map(([label, method]) => {
      const canvas = make("canvas", { role: "img" });
      const facts = make("dl");
      const bars = make("div");
      panels.push({ canvas, facts, bars, method, label });
      return make("figure", {}, [make("h3", { text: label }), canvas, make("figcaption", {}, [facts, bars])]);
    }));
    const legend = [["var(--mask)", "true defect"], ["var(--marked)", "marked pixels"], ["#0173b2", "normal images"], ["#de8f05", "damaged images"]];
    at("panels").after(make("ul", { class: "legend" }, legend.map(([background, text]) =>
      make("li", {}, [make("span", { style: `background:${background}`, "aria-hidden": "true" }), text]))));
  };

  const paint = () => {
    const one = image(), sentences = [];
    at("rate-text").textContent = percent(data.rates[state.stop]);
    at("rate").setAttribute("aria-valuetext", `${percent(data.rates[state.stop])} of normal pixels`);
    for (const panel of panels) {
      const context = panel.canvas.getContext("2d");
      context.drawImage(loaded.picture, 0, 0, panel.canvas.width, panel.canvas.height);
      const facts = [];
      let text = `${words(category().name)}, ${words(one.defect)}`;
      if (panel.method === null) {
        facts.push(["defect", words(one.defect)]);
      } else {
        const about = one.methods[panel.method], method = category().methods[panel.method];
        const map = loaded.maps[panel.method], threshold = method.thresholds[state.stop];
        const score = (value) => about.low + value / 255 * (about.high - about.low);
        if (at("show-heat").checked) heat(panel.canvas, map, (value) =>
          (score(value) - method.thresholds.at(-1)) / (method.highest - method.thresholds.at(-1)));
        if (at("show-marked").checked) outline(panel.canvas, map, (i) => score(map.values[i]) > threshold, "#7CFC00");
        const overlap = about.overlap ? about.overlap[state.stop].toFixed(3) : one.label ? "no mask" : "no defect";
        const most = about.overlap && Math.max(...about.overlap);
        facts.push(["IoU", overlap]);
        if (about.overlap) facts.push(["highest IoU", `${most.toFixed(3)} at ${percent(data.rates[about.overlap.indexOf(most)])}`]);
        facts.push(["marked", percent(about.marked[state.stop])], ["threshold", number(threshold)],
          ["image score", number(about.score)], ["stands", rank(method, about.score, one.label)]);
        text = `${panel.label}: ${percent(about.marked[state.stop])} of the image marked, IoU ${overlap}`;
        sentences.push(text);
      }
      if (loaded.mask && at("show-mask").checked) outline(panel.canvas, loaded.mask, (i) => loaded.mask.values[i] > 127, "#7df9ff");
      panel.canvas.setAttribute("aria-label", text);
      panel.facts.replaceChildren(...facts.flatMap(([name, value]) => [make("dt", { text: name }), make("dd", { text: value })]));
    }
    at("summary").textContent = `${sentences.join(". ")}.`;
  };

  const heat = (canvas, map, share) => {
    const small = make("canvas", { width: map.width, height: map.height });
    const context = small.getContext("2d");
    const pixels = context.createImageData(map.width, map.height);
    map.values.forEach((value, i) => {
      const part = Math.min(Math.max(share(value), 0), 1);
      pixels.data.set([...colour(part), 255 * 0.8 * part], 4 * i);
    });
    context.putImageData(pixels, 0, 0);
    canvas.getContext("2d").drawImage(small, 0, 0, canvas.width, canvas.height);
  };

  let turn = 0; // of two images chosen quickly the later one is drawn, whichever is decoded first
  const showImage = async () => {
    const mine = ++turn, one = image();
    const [picture, mask, ...maps] = await Promise.all([load(one.picture),
      one.mask ? grey(one.mask) : null, ...one.methods.map((method) => grey(method.map))]);
    if (mine !== turn) return;
    loaded = { picture, mask, maps };
    const name = one.name.split("/").slice(1).join("/");
    at("image-title").textContent = `${words(category().name)}: ${one.label ? words(one.defect) : "normal"} (${name})`;
    for (const panel of panels) {
      const scale = 384 / Math.max(picture.width, picture.height);
      panel.canvas.width = Math.round(picture.width * scale);
      panel.canvas.height = Math.round(picture.height * scale);
      const method = panel.method === null ? null : category().methods[panel.method];
      if (!method) continue;
      const score = one.methods[panel.method].score;
      panel.bars.replaceChildren(...histogram(method, score,
        `Image scores of the category with ${panel.label}; this image, ${number(score)}, stands ${rank(method, score, one.label)}`));
    }
    paint();
    try { history.replaceState(null, "", `#${encodeURI(one.name)}`); } catch { /* refused in some viewers */ }
  };

  const showStrip = () => {
    const found = shown();
    if (!found.some(([, i]) => i === state.image) && found.length) state.image = found[0][1];
    at("strip-title").textContent = `Image (${found.length} of ${category().images.length})`;
    at("images").replaceChildren(...found.map(([one, i]) => {
      const input = make("input", { type: "radio", name: "image", value: i });
      input.checked = i === state.image;
      input.addEventListener("change", () => { state.image = i; showImage(); });
      return make("label", { class: one.label ? "damaged" : "normal" }, [input,
        make("img", { src: one.picture, alt: `${words(one.defect)}, ${one.name.split("/").pop()}`, loading: "lazy" })]);
    }));
    const chosen = at("images").querySelector("input:checked");
    if (chosen) at("images").scrollLeft = chosen.parentElement.offsetLeft - at("images").clientWidth / 2;
    showImage();
  };

  const goTo = (name) => {
    for (const [c, one] of data.categories.entries()) {
      const i = one.images.findIndex((found) => found.name === name);
      if (i >= 0) { Object.assign(state, { category: c, image: i }); return true; }
    }
    return false;
  };
  const first = () => { state.image = Math.max(0, category().images.findIndex((one) => one.label === 1)); };
  // Opened without a name, the page shows neither the best nor the worst: the damaged image in the
  // middle, by the methods' overlaps at the threshold it starts with.
  const middle = () => {
    const together = (one) => one.methods.reduce((sum, method) => sum + method.overlap[state.stop], 0);
    const found = data.categories
      .flatMap((each, c) => each.images.map((one, i) => ({ category: c, image: i, one })))
      .filter(({ one }) => one.mask)
      .map(({ category, image, one }) => ({ category, image, overlap: together(one) }))
      .sort((a, b) => a.overlap - b.overlap);
    if (!found.length) { first(); return; }
    const { category, image } = found[Math.floor(found.length / 2)];
    Object.assign(state, { category, image });
  };
  const step = (by) => {
    const places = shown().map(([, i]) => i), here = places.indexOf(state.image) + by;
    if (here < 0 || here >= places.length) return;
    const input = at("images").querySelectorAll("input")[here];
    input.checked = true;
    input.parentElement.scrollIntoView({ block: "nearest", inline: "nearest" });
    state.image = places[here];
    showImage();
  };

  at("category").append(...data.categories.map((one, i) => make("option", { value: i, text: words(one.name) })));
  at("category").addEventListener("change", () => { state.category = Number(at("category").value); first(); showStrip(); });
  at("kind").addEventListener("change", showStrip);
  at("rate").max = data.rates.length - 1;
  at("rate").addEventListener("input", () => { state.stop = Number(at("rate").value); if (loaded) paint(); });
  for (const id of ["show-heat", "show-marked", "show-mask"]) at(id).addEventListener("change", () => loaded && paint());
  addEventListener("keydown", (event) => { if (event.key === "[") step(-1); if (event.key === "]") step(1); });
  const named = () => goTo(decodeURI(location.hash.slice(1)));
  addEventListener("hashchange", () => { if (named()) { at("category").value = state.category; showStrip(); } });
  if (!named()) middle();
  at("category").value = state.category;
  at("rate").value = state.stop;
  build();
  at("explorer").hidden = false;
  showStrip();
})();
