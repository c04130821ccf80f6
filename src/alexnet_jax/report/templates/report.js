// Embeds the charts, gives them the page's colours, light or dark, and hides what is
// not wanted.
"use strict";

// Where a finger has tapped, the charts are told that a mouse is.
function point(event) {
  const { clientX, clientY } = event;
  const there = { clientX, clientY, isPrimary: true, bubbles: true, composed: true };
  event.composedPath()[0].dispatchEvent(new PointerEvent("pointermove", there));
}

(async () => {
  for (const element of document.querySelectorAll("script[data-chart]")) {
    const item = JSON.parse(element.textContent);
    const place = document.getElementById(element.dataset.chart);
    await Bokeh.embed.embed_item(item, place);
    place.addEventListener("click", point);
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
        curve.visible = !curve.tags.some((tag) => off.has(tag));
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
