"use strict";
(() => {
  const form = document.getElementById("threshold");
  const scores = JSON.parse(form.dataset.scores); // from high to low
  const [slider, exact, count, only] =
    ["slider", "exact", "count", "only"].map((id) => document.getElementById(id));
  const high = scores[0], low = scores[scores.length - 1], span = high - low;
  if (!(span > 0)) return; // one score: nothing to choose
  const digits = Math.min(6, Math.max(4, Math.ceil(3 - Math.log10(span)))), unit = 10 ** digits;
  const photos = [...document.querySelectorAll(".photos li")];
  const strip = form.querySelector("svg");
  const every = Math.ceil(scores.length / 2000);
  const marks = scores.filter((_, i) => i % every === 0).map((score) => {
    const line = document.createElementNS("http://www.w3.org/2000/svg", "line");
    const x = String(1000 * (score - low) / span);
    line.setAttribute("x1", x); line.setAttribute("x2", x);
    line.setAttribute("y1", "6"); line.setAttribute("y2", "40");
    strip.append(line);
    return [line, score];
  });
  const show = (threshold) => {
    const above = scores.filter((score) => score >= threshold).length;
    count.textContent = `${above} of ${scores.length} at or above`;
    slider.setAttribute("aria-valuetext", `${threshold.toFixed(digits)}: ${count.textContent}`);
    marks.forEach(([line, score]) => line.classList.toggle("above", score >= threshold));
    photos.forEach((photo) => {
      const is = Number(photo.dataset.score) >= threshold;
      photo.classList.toggle("above", is);
      photo.querySelector(".mark-above").hidden = !is;
      photo.hidden = only.checked && !is;
    });
  };
  const threshold = () => Number(exact.value);
  slider.addEventListener("input", () => {
    // Rounded down, so that the end of the slider still has the highest photo.
    exact.value = (Math.floor(unit * (low + span * Number(slider.value) / 1000)) / unit).toFixed(digits);
    show(threshold());
  });
  exact.addEventListener("input", () => {
    slider.value = String(Math.round(1000 * (threshold() - low) / span));
    show(threshold());
  });
  only.addEventListener("change", () => show(threshold()));
  form.addEventListener("submit", (event) => event.preventDefault());
  form.hidden = false;
  slider.value = "500";
  slider.dispatchEvent(new Event("input"));
})();
