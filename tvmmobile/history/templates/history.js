// Draws the chart of a series and the small courses in the table; filters and sorts. Numbers: `_data` in page.py.
"use strict";
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const find = (id) => document.getElementById(id);
  const data = JSON.parse(find("data").textContent);
  if (!data.series.length) return; // all results are left out: there is nothing to draw
  const sums = (numbers) => { let sum = 0; return numbers.map((number) => (sum += number)); };
  const times = sums(data.times);
  const plot = find("plot"), tip = find("tip"), rows = all("#series tbody tr");
  const last = data.names.length - 1;
  let chosen = null, view = [0, last], at = null, drag = null;

  for (const series of data.series) {
    for (const line of series.lines) {
      line.at = [];
      for (let i = 0; i < line.commits.length; i += 2) for (let k = 0; k < line.commits[i + 1]; k++) line.at.push(line.commits[i] + k);
      for (const name of ["us", "levels"]) line[name] = sums(line[name]).map((number) => number * line.unit);
      line.starts = sums(line.starts);
    }
  }

  const ms = (us) => (us / 1e3).toFixed(us >= 100 ? 2 : 4);
  const signed = (share) => `${share > 0 ? "+" : ""}${(share / 100).toFixed(1)}%`;
  const day = (commit) => new Date(times[commit] * 1e3).toISOString().slice(0, 10);
  const side = (step) => (step[4] > 0 ? "slower" : "faster");

  function make(name, attributes, parent, text) {
    const made = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    if (text !== undefined) made.textContent = text;
    if (parent) parent.append(made);
    return made;
  }

  // The level of each segment, from half a commit before its first to half a commit after its last one.
  function levelPath(line, x, y) {
    return line.levels.map((level, i) => {
      const end = line.starts[i + 1] ?? line.at.length;
      const to = end < line.at.length ? (line.at[end - 1] + line.at[end]) / 2 : line.at[end - 1];
      const from = i ? (line.at[line.starts[i] - 1] + line.at[line.starts[i]]) / 2 : line.at[0];
      return `M${x(from).toFixed(1)},${y(level).toFixed(1)}H${x(to).toFixed(1)}`;
    }).join("");
  }

  function reach(series, [from, to]) {
    let low = Infinity, high = 0;
    for (const line of series.lines) line.at.forEach((commit, i) => {
      if (commit >= from && commit <= to && !line.spikes.includes(i)) { low = Math.min(low, line.us[i]); high = Math.max(high, line.us[i]); }
    });
    if (!high) return [1, 2];
    const margin = Math.max((high - low) * 0.12, high * 0.004);
    return [low - margin, high + margin];
  }

  function course(row, series) {
    const width = 240, height = 34, [low, high] = reach(series, [0, last]);
    const x = (commit) => 2 + (commit / Math.max(last, 1)) * (width - 4);
    const y = (us) => 2 + ((high - us) / (high - low)) * (height - 4);
    const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, preserveAspectRatio: "none", "aria-hidden": "true", style: `--series: var(--${series.kind})` });
    for (const line of series.lines) {
      const every = Math.max(1, Math.ceil(line.at.length / width));
      const points = line.at.flatMap((commit, i) => (i % every && i < line.at.length - 1) || line.spikes.includes(i) ? [] : [`${x(commit).toFixed(1)},${y(line.us[i]).toFixed(1)}`]);
      make("path", { d: `M${points.join("L")}` }, svg);
      make("path", { class: "level", d: levelPath(line, x, y) }, svg);
    }
    row.querySelector("td.course").replaceChildren(svg);
  }

  function niceTicks(low, high, count) {
    const rough = (high - low) / count, power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 2.5, 5, 10].map((one) => one * power).find((one) => one >= rough);
    const found = [];
    for (let tick = Math.ceil(low / step); tick * step <= high; tick++) found.push(tick * step);
    return [found, Math.max(0, Math.ceil(-Math.log10(step) - 1e-9) + (step / power === 2.5 ? 1 : 0))];
  }

  let frame = null;
  function draw() {
    const series = data.series[chosen], width = plot.clientWidth, height = plot.clientHeight;
    if (!width) return;
    const [low, high] = reach(series, view), [from, to] = view;
    const box = { left: 58, right: width - 12, top: 22, bottom: height - 22 };
    const x = (commit) => box.left + ((commit - from + 0.5) / (to - from + 1)) * (box.right - box.left);
    const y = (us) => box.top + ((high - us) / (high - low)) * (box.bottom - box.top);
    frame = { x, y, box, points: [] };
    plot.setAttribute("viewBox", `0 0 ${width} ${height}`);
    plot.setAttribute("style", `--series: var(--${series.kind})`);
    plot.replaceChildren();
    make("clipPath", { id: "inside" }, make("defs", {}, plot)).append(
      make("rect", { x: box.left, y: box.top - 2, width: box.right - box.left, height: box.bottom - box.top + 4 }));
    const axis = make("g", { class: "axis" }, plot);
    const [ticks, decimals] = niceTicks(low / 1e3, high / 1e3, 5);
    for (const tick of ticks) {
      make("line", { x1: box.left, x2: box.right, y1: y(tick * 1e3), y2: y(tick * 1e3) }, axis);
      make("text", { x: box.left - 6, y: y(tick * 1e3) + 4, "text-anchor": "end" }, axis, tick.toFixed(decimals));
    }
    make("text", { x: box.left - 6, y: 12, "text-anchor": "end" }, axis, "ms");
    const count = Math.max(1, Math.min(to - from + 1, Math.floor((box.right - box.left) / 110)));
    for (let i = 0; i < count; i++) {
      const commit = Math.round(from + ((i + 0.5) / count) * (to - from + 1) - 0.5);
      make("text", { x: x(commit), y: height - 6, "text-anchor": "middle" }, axis, day(commit));
    }
    make("path", { class: "frame", d: `M${box.left},${box.top}V${box.bottom}H${box.right}` }, axis);
    const inside = make("g", { "clip-path": "url(#inside)" }, plot);
    let free = -Infinity;
    for (const step of series.steps) {
      if (step[3] < from || step[2] > to) continue;
      const mark = make("g", { class: side(step) }, inside), middle = (x(step[0]) + x(step[1])) / 2;
      const [left, right] = [(x(step[2]) + x(step[2] + 1)) / 2, (x(step[3] - 1) + x(step[3])) / 2];
      make("rect", { class: "range", x: left - 1, width: Math.max(2, right - left + 2), y: box.top, height: box.bottom - box.top }, mark);
      make("line", { class: "step", x1: middle, x2: middle, y1: box.top, y2: box.bottom }, mark);
      if (middle < box.left || middle > box.right || middle - free < 50) continue;
      make("text", { class: `size ${side(step)}`, x: Math.min(middle, box.right - 24), y: box.top - 7, "text-anchor": "middle" }, plot, signed(step[4]));
      free = middle;
    }
    series.lines.forEach((line, number) => {
      const group = make("g", number < series.lines.length - 1 ? { class: "older" } : {}, inside);
      const radius = Math.max(1.6, Math.min(4, (box.right - box.left) / (to - from + 1) / 2.2));
      line.at.forEach((commit, i) => {
        if (commit < from || commit > to) return;
        const spot = { px: x(commit), py: Math.min(box.bottom, Math.max(box.top, y(line.us[i]))), line, i, commit };
        const kinds = [line.spikes.includes(i) && "spike", line.baselines.includes(i) && "baseline", line.verdicts[i] === "slower" && "verdict-slower"];
        make("circle", { class: ["dot", ...kinds.filter(Boolean)].join(" "), cx: spot.px.toFixed(1), cy: spot.py.toFixed(1), r: radius }, group);
        frame.points.push(spot);
      });
      make("path", { class: "level", d: levelPath(line, x, y) }, group);
    });
    frame.points.sort((a, b) => a.commit - b.commit);
    frame.ring = make("circle", { class: "at", r: 6, visibility: "hidden" }, inside);
    frame.drag = make("rect", { class: "drag", y: box.top, height: box.bottom - box.top, width: 0, x: 0 }, inside);
    for (const button of all(".zoom button")) {
      const wanted = Number(button.dataset.last) || last + 1;
      button.setAttribute("aria-pressed", String(to === last && from === Math.max(0, last + 1 - wanted)));
      button.hidden = Number(button.dataset.last) > last;
    }
  }

  function said(line, i, kind) {
    const parts = [`${ms(line.us[i])} ms ${kind}`];
    if (line.below) parts.push(`least ${ms(line.us[i] - line.below[i] * line.unit)}`);
    if (line.spread && line.spread[i] >= 0) parts.push(`quartiles ${(line.spread[i] / 10).toFixed(1)} % apart`);
    if (line.runs && line.runs[i] > 1) parts.push(`${line.runs[i]} runs`);
    if (line.verdicts[i]) parts.push(`gate: ${line.verdicts[i]}`);
    if (line.baselines.includes(i)) parts.push("baseline");
    if (line.spikes.includes(i)) parts.push("spike, in no level");
    return parts.join(", ");
  }

  function point(spot) {
    at = spot;
    tip.hidden = !spot;
    if (!frame) return;
    frame.ring.setAttribute("visibility", spot ? "visible" : "hidden");
    if (!spot) return;
    frame.ring.setAttribute("cx", spot.px);
    frame.ring.setAttribute("cy", spot.py);
    const lines = [said(spot.line, spot.i, data.series[chosen].kind), `${data.names[spot.commit]} · ${day(spot.commit)}`, data.subjects[spot.commit]];
    if (data.series[chosen].lines.length > 1) lines.push(spot.line.timed);
    tip.replaceChildren(...lines.filter(Boolean).map((text) => Object.assign(document.createElement("div"), { textContent: text })));
    const bounds = plot.getBoundingClientRect(), width = document.documentElement.clientWidth;
    tip.style.left = `${Math.min(Math.max(8, bounds.left + spot.px - tip.offsetWidth / 2), width - tip.offsetWidth - 8)}px`;
    const above = bounds.top + spot.py - tip.offsetHeight - 12;
    tip.style.top = `${above > 4 ? above : bounds.top + spot.py + 14}px`;
  }

  const nearest = (px, py) => frame && frame.points.reduce((best, spot) => {
    const far = (spot.px - px) ** 2 + ((spot.py - py) / 4) ** 2;
    return !best || far < best.far ? { far, spot } : best;
  }, null)?.spot;

  function describe() {
    const series = data.series[chosen], steps = series.steps;
    const told = find("told");
    told.replaceChildren();
    const shown = steps.filter((step) => step[1] >= view[0] && step[1] <= view[1]);
    const none = series.smaller ? "No step that is large enough to be listed (--least)." : "No step: no change beyond the noise.";
    if (!shown.length) { told.textContent = steps.length ? "No step among these commits." : none; return; }
    const step = shown[shown.length - 1], size = document.createElement("b");
    size.className = side(step);
    size.textContent = signed(step[4]);
    const sure = series.kind === "modelled" ? "exact" : `${signed(step[5])} to ${signed(step[6])}, between ${data.names[step[2]]} and ${data.names[step[3]]}`;
    told.append("Last step here: ", size, ` at ${data.names[step[1]]} ${data.subjects[step[1]]} (${sure}).`);
    const kernels = step[8].map(([name, old, now, schedule]) => `${data.kernels[name]} ${old?.toFixed(1) ?? "–"} → ${now?.toFixed(1) ?? "–"} us${schedule ? ` (${schedule})` : ""}`);
    if (kernels.length) told.append(document.createElement("br"), kernels.slice(0, 2).join(" · "));
  }

  function choose(number, keep) {
    chosen = number;
    if (!keep) view = [0, last];
    const series = data.series[number];
    for (const row of rows) row.classList.toggle("chosen", Number(row.dataset.series) === number);
    find("chart").hidden = false;
    find("title").textContent = series.label;
    find("where").textContent = series.where + (series.lines.length > 1 ? `; ${series.lines[series.lines.length - 1].timed}, older ones pale` : "");
    point(null);
    draw();
    describe();
  }

  const address = (number) => encodeURIComponent(`${data.series[number].label} / ${data.series[number].where}`);
  function select(number) {
    history.replaceState(null, "", `#${address(number)}`);
    choose(number, true);
    if (find("chart").getBoundingClientRect().bottom < 80) find("chart").scrollIntoView({ block: "start" });
  }

  function zoom(from, to) {
    view = [Math.max(0, from), Math.min(last, to)];
    draw();
    describe();
  }

  plot.addEventListener("pointermove", (event) => {
    const bounds = plot.getBoundingClientRect(), px = event.clientX - bounds.left;
    if (drag !== null && frame) {
      frame.drag.setAttribute("x", Math.min(drag, px));
      frame.drag.setAttribute("width", Math.abs(px - drag));
    }
    point(nearest(px, event.clientY - bounds.top));
  });
  plot.addEventListener("pointerdown", (event) => {
    if (event.pointerType === "mouse") drag = event.clientX - plot.getBoundingClientRect().left;
  });
  addEventListener("pointerup", (event) => {
    if (drag === null) return;
    const px = event.clientX - plot.getBoundingClientRect().left, { box } = frame;
    const commit = (position) => Math.floor(view[0] + ((position - box.left) / (box.right - box.left)) * (view[1] - view[0] + 1));
    const [from, to] = [Math.min(drag, px), Math.max(drag, px)];
    drag = null;
    frame.drag.setAttribute("width", 0);
    if (to - from > 8 && commit(to) - commit(from) >= 2) zoom(commit(from), commit(to));
  });
  plot.addEventListener("dblclick", () => zoom(0, last));
  plot.addEventListener("pointerleave", () => point(null));
  plot.addEventListener("blur", () => point(null));
  plot.addEventListener("keydown", (event) => {
    const move = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!move || !frame) return;
    event.preventDefault();
    const place = at ? frame.points.indexOf(at) + move : frame.points.length - 1;
    point(frame.points[Math.min(Math.max(place, 0), frame.points.length - 1)]);
  });
  for (const button of all(".zoom button")) button.addEventListener("click", () => {
    const count = Number(button.dataset.last);
    zoom(count ? last + 1 - count : 0, last);
  });
  addEventListener("resize", () => { if (chosen !== null) { point(null); draw(); } });

  for (const row of rows) {
    course(row, data.series[Number(row.dataset.series)]);
    row.tabIndex = 0;
    row.addEventListener("click", () => select(Number(row.dataset.series)));
    row.addEventListener("keydown", (event) => {
      const to = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[event.key];
      if (event.key === "Enter") select(Number(row.dataset.series));
      if (!to) return;
      event.preventDefault();
      let other = row[to];
      while (other && other.hidden) other = other[to];
      if (other) { other.focus(); select(Number(other.dataset.series)); }
    });
  }
  for (const name of all(".told .name")) name.addEventListener("click", () => {
    const { series, at: commit } = name.closest(".told").dataset;
    view = [Math.max(0, Number(commit) - 60), Math.min(last, Number(commit) + 60)];
    select(Number(series));
    find("chart").scrollIntoView({ block: "start" });
  });

  const filter = find("filter");
  filter.hidden = false;
  filter.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) {
      const text = `${data.series[Number(row.dataset.series)].label} ${data.series[Number(row.dataset.series)].where}`.toLowerCase();
      row.hidden = !words.every((word) => text.includes(word));
    }
    find("none").hidden = rows.some((row) => !row.hidden);
  });

  // Columns: by name (as given), device (as given), latest, change, last step.
  const keys = [0, null, 1, 2, 3];
  all("#series thead th").forEach((heading, column) => {
    const key = keys[column];
    if (key === null || key === undefined) return;
    const button = document.createElement("button");
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") !== "descending" && key !== 0;
      for (const other of all("#series thead th")) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => Number(row.dataset.keys.split(" ")[key]);
      const sorted = [...rows].sort((a, b) => (down ? value(b) - value(a) : value(a) - value(b)));
      sorted[0].parentNode.append(...sorted);
    });
  });

  const named = (hash) => data.series.findIndex((_, number) => address(number) === hash.slice(1));
  const latest = document.querySelector(".told");
  const start = named(location.hash);
  choose(start >= 0 ? start : latest ? Number(latest.dataset.series) : 0);
  addEventListener("hashchange", () => { const number = named(location.hash); if (number >= 0) choose(number, true); });
})();
