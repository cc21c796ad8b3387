"use strict";
(() => {
  const form = document.getElementById("threshold");
  const scores = JSON.parse(form.dataset.scores).reverse(); // from low to high
  const [slider, exact, count, only] =
    ["slider", "exact", "count", "only"].map((id) => document.getElementById(id));
  const last = scores.length - 1, low = scores[0], high = scores[last];
  if (!(high > low || form.dataset.start)) return; // one score: nothing to choose
  const quantile = (share) => scores[Math.round(share * last)];
  const photos = [...document.querySelectorAll(".photos li")];
  const strip = form.querySelector("svg");
  // A few odd photos would push all others together: they stand at the right end.
  const end = Math.min(high, quantile(0.95) + 2 * (quantile(0.95) - low) || high);
  const every = Math.ceil(scores.length / 2000);
  const marks = scores.filter((_, i) => i % every === 0 || i === last).map((score) => {
    const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
    const x = String(Math.min(1000, 1000 * (score - low) / (end - low || 1)));
    line.setAttribute("x1", x); line.setAttribute("x2", x);
    line.setAttribute("y1", "6"); line.setAttribute("y2", "40");
    strip.append(line);
    return [line, score];
  });
  // The shortest number between two neighbours, so that the one is below it and the other above.
  const between = (lower, upper) => {
    for (let digits = 1; digits < 16; digits += 1) {
      const middle = Number(((lower + upper) / 2).toFixed(digits));
      if (lower < middle && middle < upper) return middle;
    }
    return lower;
  };
  // What the slider says at its place: so many photos are not above it.
  const steps = scores.map((score, i) => {
    const lower = i ? scores[i - 1] : low - ((high - low) / 100 || 1);
    return lower < score ? between(lower, score) : null; // equal scores lie on one side
  });
  const show = (threshold) => {
    const above = scores.filter((score) => score > threshold).length;
    count.textContent = `${above} of ${scores.length} above`;
    slider.setAttribute("aria-valuetext", `${threshold}: ${count.textContent}`);
    marks.forEach(([line, score]) => line.classList.toggle("above", score > threshold));
    photos.forEach((photo) => {
      const is = Number(photo.dataset.score) > threshold;
      photo.classList.toggle("above", is);
      photo.querySelector(".mark-above").hidden = !is;
      photo.hidden = only.checked && !is;
    });
  };
  const move = () => {
    let place = Number(slider.value);
    while (steps[place] === null) place -= 1;
    exact.value = String(steps[place]);
    show(steps[place]);
  };
  const type = () => {
    slider.value = String(scores.filter((score) => score <= Number(exact.value)).length);
    show(Number(exact.value));
  };
  slider.max = String(last);
  slider.addEventListener("input", move);
  exact.addEventListener("input", type);
  only.addEventListener("change", () => show(Number(exact.value)));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  if (form.dataset.start) {
    exact.value = form.dataset.start;
    type();
  } else {
    slider.value = String(Math.min(last, Math.round(0.9 * scores.length)));
    move();
  }
})();
