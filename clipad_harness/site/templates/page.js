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

  const openTarget = () => {
    const target = location.hash && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target && target.tagName === "DETAILS") target.open = true;
  };
  addEventListener("hashchange", openTarget);
  openTarget();

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

  const element = (name, text, children = []) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    made.append(...children);
    return made;
  };
  const row = (cells) => {
    const made = element("tr", undefined, cells.map((text, i) => element(i ? "td" : "th", text)));
    made.firstChild.scope = "row";
    return made;
  };
  const scrolling = (label, rows, names) => {
    const head = names.map((text) => { const th = element("th", text); th.scope = "col"; return th; });
    const table = element("table", undefined, [element("tbody", undefined, rows)]);
    if (head.length) table.prepend(element("thead", undefined, [element("tr", undefined, head)]));
    const box = element("div", undefined, [table]);
    box.className = "scroll";
    box.tabIndex = 0;
    box.setAttribute("role", "region");
    box.setAttribute("aria-label", label);
    return box;
  };
  const duration = (seconds) => seconds < 90 ? `${seconds.toFixed(1)} s`
    : `${Math.floor(seconds / 60)} min ${Math.round(seconds % 60)} s`;
  const stages = (records) => scrolling("Run time and memory", Object.entries(records).map(
    ([name, one]) => row([name, duration(one.seconds), duration(one.cpu_seconds),
      `${one.peak_mib} MiB`, one.when.replace("T", " ")])),
    ["stage", "run time", "CPU time", "largest process", "ended"]);
  // run.js, an untracked file beside the page, sets this name; without it the page says so itself.
  const records = typeof clipadRun === "object" && clipadRun ? clipadRun : null;
  for (const place of records ? document.querySelectorAll("[data-run]") : []) {
    const note = "The last run of each stage. One that went on from finished work took less than a first run does.";
    if (place.dataset.run === "stages") {
      place.replaceChildren(stages(records), element("p", note));
      continue;
    }
    const mine = Object.entries(records).find(([, one]) => one.page === root.dataset.page);
    const about = mine ? scrolling("This run", [
      row(["made by", `clipad ${mine[0]}`]),
      row(["ended", mine[1].when.replace("T", " ")]),
      row(["host", `${mine[1].host} (${mine[1].machine})`]),
      row(["commit", mine[1].commit || "not known: no git repository"]),
      ...Object.entries(mine[1].environment || {}).map(row)], [])
      : element("p", "run.js beside this page tells of another version of it.");
    const all = element("details", undefined,
      [element("summary", "Run time and memory of every stage"), stages(records), element("p", note)]);
    place.replaceChildren(about, all);
  }

  const viewer = element("dialog");
  viewer.className = "viewer";
  viewer.addEventListener("click", () => viewer.close());
  for (const picture of document.querySelectorAll(".plot img")) {
    // A button of its own for the keyboard: around the picture it would hide its description.
    const button = element("button", "Enlarge the figure");
    button.type = "button";
    button.className = "zoom";
    picture.after(button);
    picture.classList.add("zooms");
    const enlarge = () => {
      const large = picture.cloneNode();
      large.className = "";
      large.removeAttribute("width"); // its own pixels, half as many again as on the page
      viewer.replaceChildren(large);
      document.body.append(viewer);
      viewer.showModal();
    };
    for (const opener of [picture, button]) opener.addEventListener("click", enlarge);
  }

  // Where the clipboard is refused, as some browsers do from disk, the text is selected: Ctrl-C is left.
  const copy = async (button, text, shown) => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(shown());
      button.textContent = "Selected: press Ctrl-C";
    }
  };

  for (const button of document.querySelectorAll("button.copy")) {
    button.hidden = false;
    const code = button.parentElement.querySelector("code");
    button.addEventListener("click", () => copy(button, code.textContent, () => code));
  }

  // A cell as text: without marks of notes, and what stands below each other with semicolons between.
  const plain = (cell) => {
    if (!cell) return "";
    const part = cell.cloneNode(true);
    const marks = "sup:has(a), [aria-hidden=true], a[href='#glossary']";
    for (const mark of part.querySelectorAll(marks)) mark.remove();
    for (const below of part.querySelectorAll(".cell-paper, .badge")) below.before("; ");
    return part.textContent.replace(/\s+/g, " ").replace(/ ?; /g, "; ").replace(/^; /, "").trim();
  };
  // Rows of cells, one in every place that it spans; in the body the text stands in the first column alone.
  const grid = (rows, repeat) => {
    const lines = rows.map(() => []);
    rows.forEach((line, y) => {
      let x = 0;
      for (const cell of line.cells) {
        while (lines[y][x] !== undefined) x += 1;
        for (let dy = 0; dy < cell.rowSpan && y + dy < lines.length; dy += 1) {
          for (let dx = 0; dx < cell.colSpan; dx += 1) lines[y + dy][x + dx] = repeat || !dx ? cell : null;
        }
        x += cell.colSpan;
      }
    });
    return lines;
  };
  const parts = (table) => {
    const above = grid([...(table.tHead ? table.tHead.rows : [])], true);
    const rows = [...table.tBodies].flatMap((body) => [...body.rows]);
    const body = grid(rows, false);
    const columns = [...(body[0] || above[0] || [])].map((_, x) => x);
    const heads = columns.map((x) => [...new Set(above.map((line) => plain(line[x])))]
      .filter(Boolean).join(", "));
    return { heads, rows, body: body.map((line) => columns.map((x) => line[x])), caption: plain(table.caption) };
  };
  const about = () => {
    const made = [...document.querySelectorAll(".provenance tr")].map((line) => [...line.cells].map(plain));
    const named = made.filter(([name]) => ["dataset", "weights", "code hash"].includes(name));
    const warning = document.querySelector("main .callout.warning, main .callout.fail");
    const lines = [[document.title, ...named.map((pair) => pair.join(": "))].join("; ")];
    return warning ? [...lines, plain(warning)] : lines;
  };
  const symbols = {
    "\\": "\\textbackslash{}", "~": "\\textasciitilde{}", "^": "\\textasciicircum{}", "<": "\\textless{}",
    ">": "\\textgreater{}", "|": "\\textbar{}", "±": "$\\pm$", "−": "$-$", "–": "--", "×": "$\\times$",
    "λ": "$\\lambda$", "τ": "$\\tau$", "ᴾ": "$^P$", "ᵂ": "$^W$", "⁹": "$^9$", "·": "$\\cdot$",
  };
  const escaped = (text) => text.replace(/[&%$#_{}]/g, "\\$&")
    .replace(/\\(?![&%$#_{}])|[~^<>|±−–×λτᴾᵂ⁹·]/g, (mark) => symbols[mark]);
  const formats = {
    LaTeX: (table) => {
      const { heads, rows, body, caption } = parts(table);
      const sides = heads.map((_, x) => body.every((line) => !line[x] || line[x].matches(".number")) ? "r" : "l");
      const lines = body.map((line, y) => {
        const cells = line.map((cell) => cell && cell.querySelector("strong")
          ? `\\textbf{${escaped(plain(cell))}}` : escaped(plain(cell)));
        const isFirst = y > 0 && rows[y].matches(".total") && !rows[y - 1].matches(".total");
        return `${isFirst ? "\\midrule\n" : ""}${cells.join(" & ")} \\\\`;
      });
      return [...about().map((line) => `% ${line}`), "% needs \\usepackage{booktabs}",
        "\\begin{table}[t]", "\\centering", ...(caption ? [`\\caption{${escaped(caption)}}`] : []),
        `\\begin{tabular}{${sides.join("")}}`, "\\toprule",
        ...(heads.some(Boolean) ? [`${heads.map(escaped).join(" & ")} \\\\`, "\\midrule"] : []),
        ...lines, "\\bottomrule", "\\end{tabular}", "\\end{table}", ""].join("\n");
    },
    Markdown: (table) => {
      const { heads, body, caption } = parts(table);
      const line = (texts) => `| ${texts.map((text) => text.replaceAll("|", "\\|")).join(" | ")} |`;
      return [`<!-- ${about().join("\n").replaceAll("--", "- -")} -->`, "", line(heads),
        `|${"---|".repeat(heads.length)}`, ...body.map((cells) => line(cells.map(plain))), "",
        ...(caption ? [caption, ""] : [])].join("\n");
    },
    CSV: (table) => {
      const { heads, body } = parts(table);
      const quoted = (text) => /[",\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
      const lines = [heads, ...body.map((cells) => cells.map((cell) => plain(cell).replace(/^−/, "-")))];
      return lines.map((texts) => `${texts.map(quoted).join(",")}\n`).join("");
    },
  };
  for (const table of document.querySelectorAll("table")) {
    const summary = element("summary", "Copy as …");
    const named = table.caption ? plain(table.caption) : "the table above";
    summary.setAttribute("aria-label", `Copy as …: ${named}`);
    const menu = element("details", undefined, [summary]);
    menu.className = "copies";
    for (const [name, write] of Object.entries(formats)) {
      const button = element("button", name);
      button.type = "button";
      button.addEventListener("click", () => {
        const text = write(table);
        menu.querySelector("pre")?.remove();
        menu.querySelectorAll("button").forEach((other, place) => {
          other.textContent = Object.keys(formats)[place];
        });
        copy(button, text, () => {
          const box = element("pre", text);
          box.tabIndex = 0;
          box.setAttribute("role", "region");
          box.setAttribute("aria-label", `${name}: ${named}`);
          menu.append(box);
          return box;
        });
      });
      menu.append(button);
    }
    (table.closest(".scroll") || table).after(menu);
  }
})();
