/* Draws the charts when they come into sight, with Vega-Lite; toggles points and seeds; zooms by buttons. */
"use strict";
(() => {
  const font = getComputedStyle(document.documentElement).fontFamily;
  const config = {
    background: null, font, view: { stroke: null },
    axis: {
      labelColor: "var(--faint)", titleColor: "var(--faint)", gridColor: "var(--line)", domainColor: "var(--faint)",
      tickColor: "var(--faint)", labelFontSize: 11, titleFontSize: 11, titleFontWeight: "normal", titlePadding: 8,
      labelLimit: window.innerWidth < 700 ? 110 : 200, gridOpacity: 0.7,
    },
  };
  const ERRORS = 1;  // Vega's level of its log: not that a scale is empty while nothing is shown
  const views = new Map();  // of the charts that were drawn, by name

  /* Columns as rows; a column of different values and places in it is spelled out. */
  function rows({ rows: count, columns }) {
    const named = Object.entries(columns).map(([name, column]) =>
      [name, Array.isArray(column) ? column : column.at.map((place) => (place < 0 ? null : column.of[place]))]);
    return Array.from({ length: count }, (_, row) =>
      Object.fromEntries(named.map(([name, values]) => [name, values[row]])));
  }

  function datasets(spec) {
    const names = new Set();
    JSON.stringify(spec, (key, value) => {
      if (key === "data" && value && value.name) names.add(value.name);
      return value;
    });
    return Object.fromEntries([...names].map((name) => [name, rows(page.data.sets[name])]));
  }

  /* The numbers of what is pointed at. */
  const tip = document.getElementById("tip");
  function tell(_handler, event, _item, value) {
    if (value === null || value === undefined || value === "") { tip.hidden = true; return; }
    const told = typeof value === "object" ? Object.entries(value) : [["", value]];
    tip.replaceChildren(page.list(told.filter(([name]) => !name.startsWith("_vg")).map(([name, one]) => [name, number(one)])));
    tip.hidden = false;
    const { width, height } = tip.getBoundingClientRect();
    const right = event.clientX + 14 + width > window.innerWidth;
    const below = event.clientY + 14 + height > window.innerHeight;
    tip.style.left = `${Math.max(4, right ? event.clientX - width - 14 : event.clientX + 14)}px`;
    tip.style.top = `${Math.max(4, below ? event.clientY - height - 14 : event.clientY + 14)}px`;
  }

  function number(value) {
    if (typeof value !== "number") return String(value);
    return Number.isInteger(value) ? value.toLocaleString("en") : value.toPrecision(5);
  }

  /* Toggles, by part of the page: what is shown of its points and seeds. */
  function shown(part) {
    const boxes = (name) => [...part.querySelectorAll(`input[data-${name}]`)].filter((box) => box.checked);
    const seeds = part.querySelector("input[data-seed]") ? boxes("seed").map((box) => Number(box.dataset.seed)) : null;
    return { points: boxes("point").map((box) => box.dataset.point), seeds };
  }

  async function apply(view, { points, seeds }) {
    view.signal("points", points);
    if (seeds) view.signal("seeds", seeds);
    await view.runAsync();
  }

  async function draw(figure) {
    const plot = figure.querySelector(".plot");
    const spec = page.data.charts[figure.id];
    const whole = {
      $schema: "https://vega.github.io/schema/vega-lite/v6.json", width: "container", autosize: { type: "fit-x", contains: "padding" }, padding: 2,
      ...spec, datasets: datasets(spec),
    };
    const options = { mode: "vega-lite", renderer: "svg", actions: false, defaultStyle: false, ast: true, config, tooltip: tell, logLevel: ERRORS };
    try {
      const { view } = await vegaEmbed(plot, whole, options);
      views.set(figure.id, view);
      plot.querySelector("svg")?.setAttribute("focusable", "false");
      plot.addEventListener("pointerleave", () => { tip.hidden = true; });
      await apply(view, shown(figure.closest("[data-part]")));
      figure.dataset.drawn = "yes";
    } catch (error) {
      plot.classList.add("failed");
      plot.textContent = `This plot could not be drawn: ${error.message}`;
      console.error(error);
    }
  }

  for (const part of document.querySelectorAll("[data-part]")) {
    part.querySelector(".toggles").addEventListener("change", async () => {
      const now = shown(part);
      for (const figure of part.querySelectorAll(".chart")) {
        if (views.has(figure.id)) await apply(views.get(figure.id), now);
      }
      page.say(`${now.points.length} points shown`);
    });
    part.querySelector("[data-all]").addEventListener("click", () => {
      const boxes = [...part.querySelectorAll("input[data-point]")];
      const all = boxes.every((box) => box.checked);
      for (const box of boxes) box.checked = !all;
      boxes[0]?.dispatchEvent(new Event("change", { bubbles: true }));
    });
  }

  /* Zoom by buttons: the domain of each scale is a signal, named as the selection `zoom` and the field it shows. */
  function moved([low, high], kind) {
    const width = high - low;
    switch (kind) {
      case "in": return [low + 0.2 * width, high - 0.2 * width];
      case "out": return [low - width / 3, high + width / 3];
      case "left": return [low - 0.2 * width, high - 0.2 * width];
      default: return [low + 0.2 * width, high + 0.2 * width];  // right
    }
  }

  async function zoom(view, kind) {
    for (const { field, channel } of view.signal("zoom_tuple_fields")) {
      if (channel === "y" && (kind === "left" || kind === "right")) continue;
      const scale = view.scale(channel);
      const log = scale.type === "log";
      const ends = [scale.domain()[0], scale.domain().at(-1)].map((value) => (log ? Math.log(value) : value));
      const domain = kind === "reset" ? undefined : moved(ends, kind).map((value) => (log ? Math.exp(value) : value));
      view.signal(`zoom_${field}`, domain);
    }
    await view.runAsync();
  }

  function save(figure, view) {
    const style = getComputedStyle(document.documentElement);
    view.toSVG().then((svg) => {
      const whole = svg.replace(/var\((--[\w-]+)\)/g, (_, name) => style.getPropertyValue(name).trim() || "currentColor");
      const link = page.element("a", { download: `${figure.id}.svg`, href: URL.createObjectURL(new Blob([whole], { type: "image/svg+xml" })) });
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 1000);
    });
  }

  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("[data-zoom]");
    if (!button) return;
    const figure = button.closest(".chart");
    const view = views.get(figure.id);
    if (!view) return;
    if (button.dataset.zoom === "save") save(figure, view);
    else zoom(view, button.dataset.zoom);
  });

  /* Drawn when near the window; all of them before the page is printed. */
  const figures = [...document.querySelectorAll(".chart")];
  const asked = new Set();
  function ask(figure) {
    if (asked.has(figure)) return undefined;
    asked.add(figure);
    return draw(figure);
  }
  const watcher = new IntersectionObserver((seen) => {
    for (const { isIntersecting, target } of seen) if (isIntersecting) ask(target);
  }, { rootMargin: "600px" });
  for (const figure of figures) watcher.observe(figure);
  window.addEventListener("beforeprint", () => figures.forEach(ask));
  page.drawAll = () => Promise.all(figures.map(ask));
  page.views = views;
})();
