// Tooltips, and the field "I have N ms". The page is complete without: titles show what tooltips show.
"use strict";
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const tip = document.getElementById("tip");
  const field = document.getElementById("ms");
  const answer = document.getElementById("fits");
  const kind = document.body.dataset.kind;
  let shown = null;

  // A title becomes a text of our own, shown at once and also by touch and keyboard. Tab reaches a plot, arrows its marks.
  for (const mark of all(".hint")) {
    const title = mark.querySelector(":scope > title");
    mark.dataset.tip = title ? title.textContent : mark.title;
    if (title) title.remove();
    else mark.removeAttribute("title");
    mark.setAttribute("role", "img");
    mark.setAttribute("aria-label", mark.dataset.tip);
  }
  for (const group of all(".hints")) all(".hint", group).forEach((mark, place) => mark.setAttribute("tabindex", place ? -1 : 0));

  function place() {
    const at = shown.getBoundingClientRect();
    const width = document.documentElement.clientWidth;
    const left = Math.min(Math.max(8, at.left + at.width / 2 - tip.offsetWidth / 2), width - tip.offsetWidth - 8);
    const above = at.top - tip.offsetHeight - 8;
    tip.style.left = `${left}px`;
    tip.style.top = `${above > 4 ? above : at.bottom + 8}px`;
  }

  function point(element) {
    const mark = element instanceof Element ? element.closest("[data-tip]") : null;
    const owner = element instanceof Element ? element.closest("[data-variant]:not(details)") : null;
    for (const one of all(".hot")) one.classList.remove("hot");
    if (owner) for (const one of all(`[data-variant="${owner.dataset.variant}"]:not(details)`)) one.classList.add("hot");
    shown = mark;
    tip.hidden = !mark;
    if (!mark) return;
    tip.textContent = mark.dataset.tip;
    place();
  }

  document.addEventListener("pointerover", (event) => point(event.target));
  document.addEventListener("pointerdown", (event) => point(event.target));
  document.addEventListener("focusin", (event) => point(event.target));
  document.addEventListener("scroll", () => shown && place(), { capture: true, passive: true });
  document.addEventListener("keydown", (event) => {
    if (event.key === "Escape") point(null);
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
    const group = step && event.target.closest(".hint") && event.target.closest(".hints");
    if (!group) return;
    event.preventDefault();
    const marks = all(".hint", group);
    const next = marks[(marks.indexOf(event.target.closest(".hint")) + step + marks.length) % marks.length];
    for (const mark of marks) mark.setAttribute("tabindex", mark === next ? 0 : -1);
    next.focus();
  });

  if (!field) return;
  const rows = all("#variants tr[data-ms]").map(({ dataset }) => ({ ...dataset, ms: Number(dataset.ms), top1: Number(dataset.top1) }));
  const sources = [...new Set(rows.map((row) => row.source))].sort((a, b) => a - b);

  function sentence(limit, source) {
    const group = rows.filter((row) => row.source === source).sort((a, b) => b.top1 - a.top1 || a.ms - b.ms);
    const best = group.find((row) => row.ms <= limit);
    const mark = sources.length > 1 ? `top-1 [${source}]: ` : "";
    if (best) {
      for (const one of all(`[data-variant="${best.variant}"]:not(details)`)) one.classList.add("best");
      return `${mark}${best.name} is the most accurate that fits: ${best.shown} ms ${kind}, top-1 ${best.top1.toFixed(1)} %.`;
    }
    const first = group.reduce((a, b) => (b.ms < a.ms ? b : a));
    return `${mark}none fits: the fastest, ${first.name}, takes ${first.shown} ms ${kind}.`;
  }

  function drawLimit(line, limit) {
    const [low, high, left, right] = ["low", "high", "left", "right"].map((name) => Number(line.dataset[name]));
    const inside = limit > low && limit < high;
    line.toggleAttribute("hidden", !inside);
    const x = left + (Math.log(limit / low) / Math.log(high / low)) * (right - left);
    if (inside) for (const end of ["x1", "x2"]) line.setAttribute(end, x.toFixed(1));
  }

  function update() {
    const limit = Number(field.value.trim().replace(",", "."));
    const known = limit > 0 && Number.isFinite(limit);
    for (const one of all(".best")) one.classList.remove("best");
    for (const one of all("[data-variant].over")) one.classList.remove("over");
    for (const line of all("line.limit")) drawLimit(line, known ? limit : 0);
    field.setAttribute("aria-invalid", String(!known && field.value.trim() !== ""));
    if (known) {
      for (const row of rows.filter((one) => one.ms > limit))
        for (const one of all(`[data-variant="${row.variant}"]:not(details)`)) one.classList.add("over");
      answer.textContent = sources.map((source) => sentence(limit, source)).join(" ");
    } else answer.textContent = field.value.trim() === "" ? "" : "Give a number of milliseconds, such as 15.";
  }

  function read() {
    field.value = new URLSearchParams(location.hash.slice(1)).get("ms") ?? field.value;
    update();
  }

  field.addEventListener("input", () => {
    const value = field.value.trim();
    history.replaceState(null, "", value ? `#ms=${encodeURIComponent(value)}` : location.pathname + location.search);
    update();
  });
  // A link inside the page would take the number out of the address.
  document.addEventListener("click", (event) => {
    const link = event.target.closest('a[href^="#"]');
    const target = link && field.value && document.getElementById(link.getAttribute("href").slice(1));
    if (!target) return;
    event.preventDefault();
    const details = target.closest("details");
    if (details) details.open = true;
    target.scrollIntoView();
  });
  addEventListener("hashchange", read);
  document.getElementById("budget").hidden = false;
  read();
})();
