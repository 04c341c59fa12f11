"use strict";
(() => {
  const island = JSON.parse(document.getElementById("figures").textContent);
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const narrow = window.matchMedia("(max-width: 560px)");
  const touch = window.matchMedia("(pointer: coarse)");
  const canvases = [...document.querySelectorAll(".canvas")];
  let printing = false;

  // A figure comes in the light colours; on a dark page each known colour is replaced by its counterpart.
  const recolour = (node) => {
    if (typeof node === "string") return Object.hasOwn(island.dark, node) ? island.dark[node] : node;
    if (Array.isArray(node)) return node.map(recolour);
    if (node === null || typeof node !== "object") return node;
    return Object.fromEntries(Object.entries(node).map(([key, value]) => [key, recolour(value)]));
  };

  const prepare = (canvas) => {
    const source = island.figures[canvas.dataset.figure];
    const figure = dark.matches && !printing ? recolour(source) : structuredClone(source);
    const layout = figure.layout;
    // On a touch screen a drag scrolls the page; with a mouse it zooms and a double click goes back.
    layout.dragmode = touch.matches ? false : "zoom";
    if (narrow.matches && !printing) {
      layout.font.size = 12;
      for (const trace of figure.data) {
        if (trace.type === "heatmap") Object.assign(trace, { showscale: false, textfont: { size: 10 } });
      }
    }
    if (printing) layout.width = canvas.closest(".slices") ? 310 : 640;
    return figure;
  };

  const draw = (canvas) => {
    const figure = prepare(canvas);
    if (Number(canvas.dataset.width) && !printing) canvas.style.minWidth = `${canvas.dataset.width}px`;
    else canvas.style.minWidth = "0";
    canvas.style.height = `${figure.layout.height}px`;
    return Plotly.react(canvas, figure.data, figure.layout, { displayModeBar: false, responsive: true });
  };

  const drawAll = () => Promise.all(canvases.map(draw));

  const sortBy = (heading) => {
    const table = heading.closest("table");
    const column = [...heading.parentNode.children].indexOf(heading);
    const numeric = heading.classList.contains("number");
    const down = heading.hasAttribute("aria-sort") ? heading.getAttribute("aria-sort") === "ascending" : numeric;
    for (const other of heading.parentNode.children) other.removeAttribute("aria-sort");
    heading.setAttribute("aria-sort", down ? "descending" : "ascending");
    const key = (row) => {
      const cell = row.cells[column];
      const text = cell.dataset.key ?? cell.textContent.trim();
      return numeric && text !== "" ? Number(text) : text;
    };
    const rows = [...table.tBodies[0].rows].map((row) => ({ row, key: key(row) }));
    rows.sort((a, b) => {
      if (a.key === "" || b.key === "") return (a.key === "") - (b.key === "");
      const order = numeric ? a.key - b.key : a.key.localeCompare(b.key);
      return down ? -order : order;
    });
    table.tBodies[0].append(...rows.map((entry) => entry.row));
  };

  for (const button of document.querySelectorAll(".sortable th button")) {
    button.addEventListener("click", () => sortBy(button.parentNode));
  }
  dark.addEventListener("change", drawAll);
  narrow.addEventListener("change", drawAll);
  window.addEventListener("beforeprint", () => {
    printing = true;
    drawAll();
  });
  window.addEventListener("afterprint", () => {
    printing = false;
    drawAll();
  });

  // One figure a turn of the event loop: the words can be read and scrolled while the rest is drawn.
  const drawNext = (index) => {
    document.documentElement.dataset.drawn = String(index);
    if (index < canvases.length) draw(canvases[index]).then(() => setTimeout(() => drawNext(index + 1), 0));
  };
  drawNext(0);
})();
