"use strict";
(() => {
  const root = document.documentElement;
  const remember = (key, value) => {
    try { localStorage.setItem(key, value); } catch { /* storage may be refused for local files */ }
  };
  const recall = (key) => {
    try { return localStorage.getItem(key); } catch { return null; }
  };

  const theme = document.getElementById("theme");
  const isDark = () => (root.dataset.theme ||
    (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
  const label = () => { theme.textContent = isDark() ? "Light" : "Dark"; };
  const saved = recall("clipad-theme");
  if (saved === "light" || saved === "dark") root.dataset.theme = saved;
  theme.hidden = false;
  theme.title = "Switch between light and dark";
  label();
  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    remember("clipad-theme", root.dataset.theme);
    label();
  });

  const all = document.getElementById("all-code");
  if (all) {
    all.hidden = false;
    all.addEventListener("click", () => {
      const open = all.getAttribute("aria-pressed") !== "true";
      all.setAttribute("aria-pressed", String(open));
      all.textContent = open ? "Hide all code" : "Show all code";
      document.querySelectorAll("details.code").forEach((cell) => { cell.open = open; });
    });
  }

  const contents = document.querySelector(".contents details");
  if (contents) {
    const narrow = matchMedia("(max-width: 68rem)");
    const fold = () => { contents.open = !narrow.matches; };
    fold();
    narrow.addEventListener("change", fold);
    const links = new Map([...contents.querySelectorAll("a")].map(
      (link) => [decodeURIComponent(link.hash.slice(1)), link]));
    const headings = [...document.querySelectorAll("main h2[id], main h3[id]")];
    const mark = () => {
      const passed = headings.filter((heading) => heading.getBoundingClientRect().top < 120);
      const here = (passed.pop() || headings[0] || {}).id;
      links.forEach((link, id) => {
        if (id === here) link.setAttribute("aria-current", "true");
        else link.removeAttribute("aria-current");
      });
    };
    addEventListener("scroll", mark, { passive: true });
    mark();
  }
})();
