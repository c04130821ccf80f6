// Embeds the charts, gives them the page's colours, light or dark, and hides what is
// not wanted.
"use strict";

// Where a finger has tapped, the charts are told that a mouse is.
function point(event) {
  const { clientX, clientY, view } = event;
  const there = { clientX, clientY, view, isPrimary: true, composed: true };
  event.composedPath()[0].dispatchEvent(new PointerEvent("pointermove", there));
}

// The place in a rising list that is nearest to a number.
function nearest(list, number) {
  let best = 0;
  for (let at = 1; at < list.length; at++) {
    if (Math.abs(list[at] - number) <= Math.abs(list[best] - number)) best = at;
  }
  return best;
}

// Says what all curves of a chart are where the pointer is, in one place; from one
// evaluation to the next with the arrow keys.
function answer(chart, place) {
  const tip = document.createElement("table");
  tip.className = "tip";
  tip.hidden = true;
  tip.setAttribute("aria-live", "polite");
  place.append(tip);
  const [unit] = chart.tags;
  const curves = () => chart.renderers.filter((curve) => curve.name && curve.visible);

  function say(x) {
    tip.replaceChildren();
    for (const curve of curves()) {
      const { epoch, value } = curve.data_source.data;
      if (!epoch.length) continue;
      const at = nearest(epoch, x);
      const row = tip.insertRow();
      const dot = document.createElement("i");
      dot.className = "dot";
      dot.style.setProperty("--c", curve.glyph.line_color.value);
      row.insertCell().append(dot, curve.name);
      row.insertCell().append(`${+value[at].toPrecision(4)}${unit}`);
      row.insertCell().append(`epoch ${+epoch[at].toFixed(1)}`);
    }
    tip.hidden = !tip.rows.length;
    const { start, end } = chart.x_range;
    const width = place.clientWidth;
    const across = ((x - start) / (end - start)) * width;
    const left = across < width / 2;
    tip.style.left = left ? `${across + 24}px` : "auto";
    tip.style.right = left ? "auto" : `${width - across + 24}px`;
  }

  let here = -1;
  place.addEventListener("keydown", (event) => {
    const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    const tests = curves().filter((curve) => curve.glyph.tags.includes("evaluation"));
    const epochs = tests.flatMap((curve) => [...curve.data_source.data.epoch]);
    if (!step || !epochs.length) return;
    event.preventDefault();
    const stops = [...new Set(epochs)].sort((one, other) => one - other);
    here = Math.min(Math.max(here + step, 0), stops.length - 1);
    say(stops[here]);
  });
  chart.on_event("mousemove", ({ x }) => say(x));
  chart.on_event("mouseleave", () => (tip.hidden = true));
}

(async () => {
  Bokeh.set_log_level("error");
  for (const element of document.querySelectorAll("script[data-chart]")) {
    const item = JSON.parse(element.textContent);
    const place = document.getElementById(element.dataset.chart);
    await Bokeh.embed.embed_item(item, place);
    const [chart] = Bokeh.documents.at(-1).roots();
    place.addEventListener("click", point);
    if (chart.tags.length) answer(chart, place);
  }
  const charts = Bokeh.documents.flatMap((page) => page.roots());

  function paint() {
    const style = getComputedStyle(document.documentElement);
    const ink = style.getPropertyValue("--faint").trim();
    const line = style.getPropertyValue("--line").trim();
    for (const chart of charts) {
      for (const axis of [...chart.below, ...chart.left]) {
        axis.axis_label_text_color = axis.major_label_text_color = ink;
        axis.major_tick_line_color = line;
      }
      for (const part of chart.center) {
        if (part.type === "Grid") part.grid_line_color = line;
      }
    }
  }

  function show() {
    const off = new Set();
    for (const box of document.querySelectorAll(".legend input:not(:checked)")) {
      off.add(box.dataset.run ? `run-${box.dataset.run}` : box.dataset.kind);
    }
    for (const chart of charts) {
      for (const curve of chart.renderers) {
        curve.visible = !curve.glyph.tags.some((tag) => off.has(tag));
      }
    }
  }

  paint();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
  document.querySelector(".legend").addEventListener("change", show);
  show(); // a browser may remember what was hidden
  document.documentElement.dataset.charts = charts.length;
})();

// A link to what is folded away unfolds it.
addEventListener("hashchange", () => {
  const target = document.querySelector(location.hash || null);
  const folded = target && target.closest("details");
  if (folded) folded.open = true;
});
