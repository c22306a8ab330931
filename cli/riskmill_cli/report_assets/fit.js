"use strict";
(async () => {
  const nonce = document.currentScript.nonce;
  const $ = (id) => document.getElementById(id);
  async function unpack(id) {
    const bytes = Uint8Array.from(atob($(id).textContent.trim()), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  }
  const groups = JSON.parse(await unpack("fit-data"));
  const library = document.createElement("script");
  library.nonce = nonce;
  library.textContent = await unpack("chart-library");
  document.head.append(library);
  const Plotly = window.Plotly;

  const names = { generalised_pareto: "generalised Pareto", lognormal: "lognormal", pareto: "Pareto" };
  const colours = { generalised_pareto: "#1f3f66", lognormal: "#0f7b72", pareto: "#b06a1c" };
  const font = { family: getComputedStyle(document.body).fontFamily, size: 13, color: "#17212b" };
  const config = { responsive: true, displayModeBar: false };
  const axis = (title, type) => ({ type, title: { text: title, font: { size: 12.5, color: "#51606e" } }, gridcolor: "#e4e7e9",
    zeroline: false, fixedrange: true, tickformat: ",~g", nticks: type === "log" ? 5 : 6, ...(type === "log" ? { dtick: 1 } : {}), tickfont: { size: 12 } });
  const layout = (x, y, rest) => ({ font, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", dragmode: false,
    margin: { l: 70, r: 18, t: 40, b: 52 }, hovermode: "closest", legend: { orientation: "h", x: 0, y: 1.01, yanchor: "bottom" }, xaxis: x, yaxis: y, ...rest });
  const dots = (x, y, name, color) => ({ x, y, name, mode: "markers", marker: { color, size: 4.5, opacity: 0.75 } });

  // Whole decades are too few marks where losses span less than two, and every one is too many where they span a dozen.
  // A large loss is marked as 10k or 1M: written out, marks run into each other.
  function lossAxis(title, type, losses) {
    const above = losses.filter((loss) => loss > 0); // a quantile that is no number is null
    const largest = above.reduce((a, b) => Math.max(a, b), 0), ratio = largest / above.reduce((a, b) => Math.min(a, b), Infinity);
    const marks = type === "log" ? { dtick: ratio < 60 ? "D2" : Math.ceil(Math.log10(ratio) / 6) } : {};
    return { ...axis(title, type), ...marks, tickformat: largest >= 1e4 ? "~s" : ",~r" };
  }

  groups.forEach((group, at) => {
    if (!group.laws) return;
    const chance = group.annual ? "Exceeded, times a year (log scale)" : "Probability of exceeding (log scale)";
    Plotly.react($("exceedance-" + at), [
      dots(group.losses, group.exceedance, "losses", "#17212b"),
      ...group.laws.map((law) => ({ x: law.loss, y: law.exceedance, name: names[law.name], mode: "lines", line: { color: colours[law.name], width: 2.2 } })),
    ], layout(lossAxis("Loss (log scale)", "log", [...group.losses, ...group.laws.flatMap((law) => law.loss)]), axis(chance, "log")), config);

    const first = group.losses[0], last = group.losses[group.losses.length - 1];
    Plotly.react($("qq-" + at), [
      { x: [first, last], y: [first, last], name: "equal", mode: "lines", line: { color: "#8a949d", width: 1, dash: "dot" }, hoverinfo: "skip" },
      ...group.laws.map((law) => dots(law.qq, group.losses, names[law.name], colours[law.name])),
    ], layout(lossAxis("Quantile of the fitted law (log scale)", "log", group.laws.flatMap((law) => law.qq)), lossAxis("Loss (log scale)", "log", group.losses)), config);

    Plotly.react($("excess-" + at), [dots(group.excess.level, group.excess.mean, "mean excess", "#17212b")],
      layout(lossAxis("Loss", "linear", group.excess.level), lossAxis("Mean excess over it", "linear", group.excess.mean), { showlegend: false }), config);
  });
  const charts = [...document.querySelectorAll(".chart")].filter((node) => node.data);
  // paper is narrower than the screen: A4 less its margins is about 700 CSS pixels
  addEventListener("beforeprint", () => charts.forEach((node) => Plotly.relayout(node, { width: 690 })));
  addEventListener("afterprint", () => charts.forEach((node) => Plotly.relayout(node, { autosize: true, width: null })));
  document.documentElement.dataset.ready = "true";
})();
