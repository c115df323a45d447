// The page's own behaviour: fill the plots from the embedded tables, switch curves, zoom, and save tables as CSV.
"use strict";
(async () => {
  const page = JSON.parse(document.getElementById("page-data").textContent);
  const packed = Uint8Array.from(atob(page.tables), (character) => character.charCodeAt(0));
  const tables = await new Response(new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"))).json();
  const seriesOf = new Map(page.series.map((each) => [JSON.stringify([each.study, each.arm]), each]));
  const views = new Map();

  /** The rows of a table as objects; each knows its series, and what a tooltip calls that. */
  function rowsOf(name) {
    const { columns, rows } = tables[name];
    return rows.map((values) => {
      const row = Object.fromEntries(columns.map((column, place) => [column, values[place]]));
      const series = seriesOf.get(JSON.stringify([row.study, row.baseline ?? row.arm]));
      return series ? { ...row, series: series.key, label: series.label } : row;
    });
  }

  async function draw(element) {
    const spec = page.plots[element.dataset.plot];
    const options = {
      mode: "vega-lite",
      renderer: "svg",
      actions: false,
      ast: true, // expressions are interpreted: the page's policy allows no eval
      tooltip: { theme: "page", disableDefaultStyle: true },
      logLevel: 1, // errors; that nothing is left to draw when every curve is off is none
    };
    const data = { ...spec.data, values: rowsOf(spec.data.name) };
    const { view } = await window.vegaEmbed(element, { ...spec, data }, options);
    views.set(element.dataset.plot, view);
    element.querySelector("svg").setAttribute("aria-hidden", "true"); // the figure has one description
    await applyControls(view); // a browser that reloads a page keeps its boxes and choices as they were
    for (const select of choicesOf(element)) setSignal(view, select.dataset.signal, JSON.parse(select.value));
    if (element.dataset.plot === "answer") explain(element, view);
    await view.runAsync();
  }

  const choicesOf = (element) => element.closest("figure").querySelectorAll("[data-signal]");

  /** Below the first chart, give the verdict on the level that the reader points at or reaches with the arrow keys. */
  function explain(element, view) {
    const steps = element.closest(".steps");
    const said = document.getElementById("reason");
    const levels = () => rowsOf("answer").filter((row) => row.series === view.signal("arm") && row.mean !== null);
    let at = null;

    function show(level) {
      const row = levels().find((each) => each.level === level);
      if (!row || level === at) return;
      at = level;
      view.signal("at", level).runAsync();
      const weights = `${Number((100 * row.density).toPrecision(3))} % of the weights`;
      said.textContent = row.verdict ? `${weights}: ${row.verdict}. ${row.reason[0].toUpperCase()}${row.reason.slice(1)}.` : `${weights}: the dense network.`;
    }

    view.addEventListener("pointermove", (_, item) => show(item?.datum?.level));
    view.addEventListener("click", (_, item) => show(item?.datum?.level));
    steps.addEventListener("keydown", (event) => {
      const all = levels().map((row) => row.level);
      const place = all.indexOf(at);
      const to = { ArrowRight: place + 1, ArrowLeft: Math.max(place, 1) - 1, Home: 0, End: all.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      show(all[Math.min(to, all.length - 1)]);
    });
    for (const select of choicesOf(element)) select.addEventListener("change", () => (at = null));
  }

  function setSignal(view, name, value) {
    try {
      view.signal(name, value);
    } catch {
      // this plot has no such signal
    }
  }

  function applyControls(view) {
    const form = document.getElementById("controls");
    if (!form) return view.runAsync();
    const boxes = [...form.querySelectorAll("input[name=series]:checked")];
    setSignal(view, "shown", boxes.map((box) => box.value));
    setSignal(view, "whole", form.querySelector("input[name=whole]").checked);
    document.getElementById("count").textContent = `${boxes.length} of ${page.series.length}`;
    return view.runAsync();
  }

  /** Zoom about the middle; in logarithms where the axis is logarithmic. */
  function zoom(view, direction) {
    const signals = Object.keys(view.getState({ signals: (name) => name.startsWith("zoom_"), data: () => false }).signals);
    for (const axis of ["x", "y"]) {
      // Vega-Lite calls the signal of a zoomed axis after the field that is drawn on it.
      const field = page.plots[view.container().closest("[data-plot]").dataset.plot].layer[0].encoding[axis].field;
      const name = `zoom_${field}`;
      if (!signals.includes(name)) continue;
      if (direction === "reset") {
        view.signal(name, null);
        continue;
      }
      const scale = view.scale(axis);
      const logarithmic = scale.type === "log";
      const [first, last] = scale.domain().map((value) => (logarithmic ? Math.log(value) : value));
      const middle = (first + last) / 2;
      const half = ((last - first) / 2) * (direction === "in" ? 1 / 1.4 : 1.4);
      const ends = [middle - half, middle + half];
      view.signal(name, logarithmic ? ends.map(Math.exp) : ends);
    }
    return view.runAsync();
  }

  function quoted(value) {
    // A spreadsheet would take such a text for a formula.
    const formula = typeof value === "string" && /^[=+\-@\t\r']/.test(value);
    const text = value === null ? "" : (formula ? "'" : "") + value;
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  }

  function csvOf(name) {
    const { columns, rows } = tables[name];
    return [columns, ...rows].map((row) => row.map(quoted).join(",") + "\n").join("");
  }

  function download(name) {
    const address = URL.createObjectURL(new Blob([csvOf(name)], { type: "text/csv" }));
    const link = document.createElement("a");
    link.href = address;
    link.download = `${name}.csv`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 10_000);
    document.getElementById("said").textContent = `${name}.csv saved`;
  }

  for (const button of document.querySelectorAll("[data-download]")) {
    button.addEventListener("click", () => download(button.dataset.download));
  }
  const form = document.getElementById("controls");
  form?.addEventListener("submit", (event) => event.preventDefault());
  form?.addEventListener("change", () => views.forEach(applyControls));
  for (const figure of document.querySelectorAll("figure:has([data-plot])")) {
    const view = () => views.get(figure.querySelector("[data-plot]").dataset.plot);
    for (const select of figure.querySelectorAll("[data-signal]")) {
      select.addEventListener("change", () => view()?.signal(select.dataset.signal, JSON.parse(select.value)).runAsync());
    }
    for (const button of figure.querySelectorAll("[data-zoom]")) {
      button.addEventListener("click", () => view() && zoom(view(), button.dataset.zoom));
    }
  }
  const folded = [...document.querySelectorAll("details[data-print]")];
  const open = new Set();
  window.addEventListener("beforeprint", () => folded.forEach((each) => (each.open ? open.add(each) : (each.open = true))));
  window.addEventListener("afterprint", () => folded.forEach((each) => (each.open = open.has(each))));
  const plots = [...document.querySelectorAll("[data-plot]")];
  Promise.all(plots.map(draw)).then(() => document.documentElement.classList.add("drawn"));
})();
