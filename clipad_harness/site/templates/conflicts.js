"use strict";
(() => {
  const choices = document.getElementById("conflict-choices");
  const search = document.getElementById("conflict-search");
  const leftAlone = document.getElementById("conflict-left");
  const count = document.getElementById("conflict-count");
  let after = choices;
  while (after && !after.querySelector("table")) after = after.nextElementSibling;
  if (!after) return;
  // Every word must stand somewhere in the row, in any order.
  const rows = [...after.querySelectorAll("tbody tr")].map((row) => [row, row.textContent.toLowerCase()]);
  const filter = () => {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    let shown = 0;
    for (const [row, text] of rows) {
      const fits = words.every((word) => text.includes(word)) &&
        (!leftAlone.checked || row.classList.contains("left"));
      row.hidden = !fits;
      shown += fits;
    }
    count.textContent = `${shown} of ${rows.length}`;
  };
  search.addEventListener("input", filter);
  leftAlone.addEventListener("change", filter);
  choices.hidden = false;
  filter();
})();
