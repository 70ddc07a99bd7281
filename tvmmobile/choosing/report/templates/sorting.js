// Sorts the table by the column whose heading is pressed, and filters it by name, library and front; hidden rows are hidden in the plot too.
(() => {
  const all = (selector, within = document) => [...within.querySelectorAll(selector)];
  const table = document.getElementById("variants");
  const filter = document.getElementById("filter");
  if (!table || !filter) return;
  const body = table.tBodies[0];
  const rows = [...body.rows];
  const [words] = all("input[type=search]", filter);
  const libraries = all("input[value]:not([type=search])", filter).filter((box) => box.id !== "front-only");
  const frontOnly = document.getElementById("front-only");

  const shown = (row, column) => row.cells[column].textContent.trim();
  // Latencies may have a ~ in front, accuracies the number of their source behind.
  const number = (text) => Number(text.replace(/^~|\s*\[\d+\]$/g, ""));
  for (const [column, heading] of [...table.tHead.rows[0].cells].entries()) {
    if (!heading.textContent.trim()) continue;
    const button = document.createElement("button");
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const ascending = heading.getAttribute("aria-sort") !== "ascending";
      for (const other of all("th[aria-sort]", table)) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", ascending ? "ascending" : "descending");
      const numeric = rows.every((row) => !Number.isNaN(number(shown(row, column))));
      const key = (row) => (numeric ? number(shown(row, column)) : shown(row, column));
      const order = (one, two) => (one < two ? -1 : one > two ? 1 : 0) * (ascending ? 1 : -1);
      body.append(...rows.sort((one, two) => order(key(one), key(two))));
    });
  }

  function update() {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    const kept = new Set(libraries.filter((box) => box.checked).map((box) => box.value));
    let count = 0;
    for (const row of rows) {
      const text = row.dataset.name.toLowerCase().replaceAll("_", " ");
      const inside = kept.has(row.dataset.library) && (!frontOnly.checked || "front" in row.dataset);
      const visible = inside && wanted.every((word) => text.includes(word.replaceAll("_", " ")));
      for (const one of all(`[data-variant="${row.dataset.variant}"]`)) one.toggleAttribute("hidden", !visible);
      count += visible;
    }
    document.getElementById("count").textContent = count < rows.length ? `${count} of ${rows.length} shown` : "";
  }

  filter.addEventListener("input", update);
  filter.hidden = false;
  update();
})();
