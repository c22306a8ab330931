"use strict";
(async () => {
  const nonce = document.currentScript.nonce;
  const $ = (id) => document.getElementById(id);

  // ---- unpacking: gzip in base64, so that the page stays small and is one file ----
  async function unpack(id) {
    const bytes = Uint8Array.from(atob($(id).textContent.trim()), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Response(stream).text();
  }

  // ---- numbers, as riskmill_cli/figures.py writes them ----
  function compact(value) {
    if (value === null || value === undefined) return "–";
    const size = Math.abs(value);
    for (const [scale, suffix] of [[1e9, "bn"], [1e6, "m"], [1e3, "k"]]) {
      if (size >= scale * 0.9995) {
        const x = value / scale, a = Math.abs(x);
        const digits = a < 9.995 ? 2 : a < 99.95 ? 1 : 0;
        return x.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits }) + suffix;
      }
    }
    return value.toLocaleString("en-US", { maximumFractionDigits: 0 });
  }
  function interval(low, high) { // 1.62–1.95bn, but 940m–1.07bn
    const a = compact(low), b = compact(high), unit = (text) => text.replace(/[-\d.,]/g, "");
    return (unit(a) === unit(b) && unit(a) ? a.slice(0, -unit(a).length) : a) + "–" + b;
  }
  // one standard error, in small print under its figure
  const plusMinus = (error, show = compact) => typeof error === "number" ? [el("span", { class: "interval" }, "± " + show(error))] : [];
  const limits = (low, high, show = interval) => typeof low === "number" && typeof high === "number" ? [el("span", { class: "interval" }, show(low, high))] : [];
  const between = (low, high) => percent(low, 2).slice(0, -1) + "–" + percent(high, 2);
  const percent = (value, digits = 1) => value === null || value === undefined ? "–" : (value * 100).toFixed(digits) + "%";
  const count = (value) => value.toLocaleString("en-US");
  const years = (value) => value.toLocaleString("en-US", { maximumFractionDigits: 1 });

  // ---- elements: text only ever goes in as text ----
  function el(tag, attributes = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "class") node.className = value;
      else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
      else if (value !== null) node.setAttribute(name, value);
    }
    node.append(...children.map((child) => child instanceof Node ? child : document.createTextNode(child)));
    return node;
  }
  // plotly reads a little markup in labels; entities make it read text
  const label = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
  const clip = (text, length) => text.length > length ? text.slice(0, length - 1) + "…" : text;

  const data = JSON.parse(await unpack("report-data"));
  const deals = data.deals, n = deals.deal_id.length;

  // ================= table of deals =================
  const columns = [
    { key: "deal_id", title: "Deal", text: true },
    { key: "cedant", title: "Cedant", text: true },
    { key: "business_unit", title: "Business unit", text: true },
    { key: "premium", title: "Premium", show: compact, sum: true },
    { key: "limit", title: "Limit", show: compact, minor: true },
    { key: "aal", title: "AAL", show: compact, sum: true },
    { key: "loss_ratio", title: "Loss ratio", show: percent },
    { key: "sd", title: "Std dev", show: compact, minor: true },
    { key: "co_tvar", title: "co-TVaR", show: compact, sum: true },
    { key: "share_of_tvar", title: "Share of TVaR", show: (v) => percent(v, 2), sum: true, bar: true },
    { key: "net_co_tvar", title: "Net co-TVaR", show: compact, sum: true },
    { key: "marginal_tvar", title: "Marginal TVaR", show: compact, minor: true },
  ];
  const look = (column) => column.text ? "text" : column.minor ? "minor" : ""; // minor columns give way on narrow pages
  const ratio = (aal, premium) => aal === null || !premium ? null : aal / premium;
  deals.loss_ratio = deals.aal.map((aal, i) => ratio(aal, deals.premium[i]));
  const layersOf = new Map();
  data.layers.deal.forEach((deal, i) => { layersOf.has(deal) ? layersOf.get(deal).push(i) : layersOf.set(deal, [i]); });
  const haystack = deals.deal_id.map((id, i) => [id, deals.cedant[i], deals.business_unit[i],
    ...(layersOf.get(i) || []).map((l) => data.layers.layer_id[l])].join("\n").toLowerCase());
  const largestShare = deals.share_of_tvar.reduce((a, b) => Math.max(a, b || 0), 0);

  const PAGE = 50;
  const state = { sort: "co_tvar", down: true, page: 0, text: "", unit: "", rows: [], open: new Set() };
  const collator = new Intl.Collator("en", { numeric: true, sensitivity: "base" });
  const head = el("tr"), body = el("tbody"), foot = el("tfoot");
  for (const column of columns) {
    column.th = el("th", { scope: "col", class: look(column) },
      el("button", { type: "button", onclick: () => sortBy(column) }, column.title));
    head.append(column.th);
  }
  $("deal-table").append(el("caption", { class: "visually-hidden" }, "Deals; the buttons in the head sort, each deal opens its layers"),
    el("thead", {}, head), body, foot);
  for (const unit of [...new Set(deals.business_unit)].sort(collator.compare)) $("deal-unit").append(el("option", { value: unit }, unit));

  function sortBy(column) {
    state.down = state.sort === column.key ? !state.down : !column.text;
    state.sort = column.key;
    select();
  }
  function select() {
    const words = state.text.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = [];
    for (let i = 0; i < n; i++) {
      if (state.unit && deals.business_unit[i] !== state.unit) continue;
      if (words.every((word) => haystack[i].includes(word))) rows.push(i);
    }
    const values = deals[state.sort], sign = state.down ? -1 : 1;
    const text = columns.find((column) => column.key === state.sort).text;
    rows.sort((a, b) => {
      const x = values[a], y = values[b];
      if (x === y) return a - b;
      if (x === null) return 1; // undefined last, either way
      if (y === null) return -1;
      return sign * (text ? collator.compare(x, y) : x - y);
    });
    state.rows = rows;
    state.page = 0;
    draw();
  }
  function draw() {
    const { rows, page } = state, first = page * PAGE, shown = rows.slice(first, first + PAGE);
    for (const column of columns) {
      if (column.key === state.sort) column.th.setAttribute("aria-sort", state.down ? "descending" : "ascending");
      else column.th.removeAttribute("aria-sort");
    }
    body.replaceChildren(...shown.flatMap((i) => state.open.has(i) ? [dealRow(i), detailRow(i)] : [dealRow(i)]));
    if (!rows.length) body.append(el("tr", {}, el("td", { colspan: columns.length, class: "text" }, "No deal matches.")));
    const total = (key) => rows.reduce((sum, i) => sum + (deals[key][i] || 0), 0);
    foot.replaceChildren(el("tr", {}, ...columns.map((column, c) => {
      if (c === 0) return el("td", { class: "text" }, rows.length === n ? "All deals" : "Selection");
      if (column.key === "loss_ratio") return el("td", {}, percent(ratio(total("aal"), total("premium"))));
      return el("td", { class: look(column) }, column.sum ? column.show(total(column.key)) : "");
    })));
    $("deal-count").textContent = rows.length === n ? `${count(n)} deals` : `${count(rows.length)} of ${count(n)} deals`;
    $("page-label").textContent = rows.length ? `${count(first + 1)}–${count(first + shown.length)} of ${count(rows.length)}` : "";
    $("page-prev").disabled = page === 0;
    $("page-next").disabled = first + PAGE >= rows.length;
  }
  function dealRow(i) {
    const row = el("tr", { "data-deal": deals.deal_id[i] });
    columns.forEach((column, c) => {
      const value = deals[column.key][i];
      if (c === 0) {
        const open = el("button", { type: "button", class: "open", "aria-expanded": String(state.open.has(i)), title: "Layers of this deal",
          onclick: () => toggle(i) }, value);
        row.append(el("th", { scope: "row", class: "text" }, open));
      } else if (column.text) row.append(el("td", { class: "text" }, value));
      else {
        const error = deals[column.key + "_se"]?.[i];
        const cell = el("td", { class: look(column), "data-value": value === null ? "" : String(value) }, column.show(value), ...plusMinus(error, column.show));
        if (column.bar && value > 0) {
          cell.className = "barcell";
          const bar = el("i");
          bar.style.width = Math.max(1, 90 * value / largestShare) + "%";
          cell.append(bar);
        }
        row.append(cell);
      }
    });
    return row;
  }
  function toggle(i) {
    state.open.has(i) ? state.open.delete(i) : state.open.add(i);
    draw();
    body.querySelector(`tr[data-deal="${CSS.escape(deals.deal_id[i])}"] .open`).focus();
  }
  const layerColumns = [
    ["layer_id", "Layer"], ["type", "Type"], ["expected_loss", "Expected loss", compact], ["sd", "Std dev", compact],
    ["prob_attach", "P(attach)", (v) => percent(v, 2)], ["prob_exhaust", "P(exhaust)", (v) => percent(v, 2)],
    ["expected_reinstatement_premium", "Exp. reinst. premium", compact], ["loss_on_line", "Loss on line", (v) => percent(v, 2)],
    ["rate_on_line", "Rate on line", (v) => percent(v, 2)], ["technical_premium", "Technical premium", compact],
    ["premium", "Premium", compact], ["limit", "Limit", compact],
  ].filter(([key]) => data.layers[key].some((value) => value !== null));
  function detailRow(i) {
    const rows = (layersOf.get(i) || []).map((l) => el("tr", {}, ...layerColumns.map(([key, , show]) =>
      el("td", { class: show ? "" : "text" }, show ? show(data.layers[key][l]) : data.layers[key][l],
        ...plusMinus(data.layers[key + "_se"]?.[l], show), ...limits(data.layers[key + "_low"]?.[l], data.layers[key + "_high"]?.[l], between)))));
    const content = rows.length
      ? el("table", { class: "figures" }, el("thead", {}, el("tr", {}, ...layerColumns.map(([, title, show]) =>
        el("th", { scope: "col", class: show ? "" : "text" }, title)))), el("tbody", {}, ...rows))
      : el("p", { class: "note" }, "No price figures for this deal.");
    return el("tr", { class: "detail" }, el("td", { colspan: columns.length }, content));
  }
  $("deal-filter").addEventListener("input", (event) => { state.text = event.target.value; select(); });
  $("deal-unit").addEventListener("change", (event) => { state.unit = event.target.value; select(); });
  $("page-prev").addEventListener("click", () => { state.page--; draw(); });
  $("page-next").addEventListener("click", () => { state.page++; draw(); });
  select();

  // ================= exceedance probability =================
  const views = [["gross", "Gross"], ["ceded", "Ceded"], ["net", "Net"]];
  const colours = { gross: "#1f3f66", ceded: "#b06a1c", net: "#0f7b72" };
  const fills = { gross: "rgba(31,63,102,.13)", net: "rgba(15,123,114,.15)" };
  const epState = { group: 0, basis: "oep" };
  data.groups.forEach((group, i) => $("ep-group").append(el("option", { value: i }, "\u2003".repeat(group.depth) + group.name)));

  function epTable() {
    const group = data.groups[epState.group], basis = epState.basis, name = basis.toUpperCase();
    const periods = [...new Set(views.flatMap(([v]) => (group.views[v]?.ep || []).map((p) => p.return_period)))].sort((a, b) => a - b);
    const rows = views.filter(([v]) => group.views[v]).flatMap(([view, title]) => {
      const at = new Map(group.views[view].ep.map((p) => [p.return_period, p]));
      const quantile = periods.map((rp) => {
        const p = at.get(rp) || {}, cell = el("td", {}, compact(p[basis]));
        if (view !== "ceded") cell.append(...limits(p[basis + "_low"], p[basis + "_high"]));
        return cell;
      });
      const tail = periods.map((rp) => {
        const p = at.get(rp) || {};
        return el("td", {}, compact(p[basis + "_tvar"]), ...plusMinus(p[basis + "_tvar_se"]));
      });
      return [el("tr", {}, el("th", { scope: "row", class: "text c-" + view }, `${title} ${name}`), ...quantile),
        el("tr", {}, el("th", { scope: "row", class: "text c-" + view }, `${title} TVaR`), ...tail)];
    });
    $("ep-table").replaceChildren(
      el("caption", { class: "visually-hidden" }, `${name} of ${group.name} by return period, with confidence intervals`),
      el("thead", {}, el("tr", {}, el("th", { scope: "col", class: "text" }, "Return period, years"), ...periods.map((rp) => el("th", { scope: "col" }, years(rp))))),
      el("tbody", {}, ...rows));
    $("ep-lede").textContent = basis === "oep"
      ? "Occurrence basis: the largest single event of a year. Shaded: confidence interval of the simulation."
      : "Aggregate basis: the sum of a year's losses. Shaded: confidence interval of the simulation.";
  }
  // ================= perils =================
  const perilState = { group: 0, view: "gross", basis: "oep" };
  const palette = ["#1f3f66", "#b06a1c", "#0f7b72", "#8c3b4a", "#6b7a2f", "#6a5a9c", "#3d8bb5", "#8b6f47"];
  const withPerils = data.groups.map((group, i) => i).filter((i) => views.some(([v]) => data.groups[i].views[v]?.perils.length));
  const hasPerils = withPerils.length > 0;
  for (const i of withPerils) $("peril-group").append(el("option", { value: i }, "\u2003".repeat(data.groups[i].depth) + data.groups[i].name));
  function perilViews() { // the views that the chosen group has
    const there = views.filter(([v]) => data.groups[perilState.group].views[v]?.perils.length);
    if (!there.some(([v]) => v === perilState.view)) perilState.view = there[0][0];
    $("peril-view").replaceChildren(...there.map(([v, title]) => el("option", { value: v }, title)));
    $("peril-view").value = perilState.view;
  }
  const perilsOf = () => data.groups[perilState.group].views[perilState.view].perils;
  function perilTable() {
    const whole = data.groups[perilState.group].views[perilState.view], basis = perilState.basis, name = basis.toUpperCase();
    const heads = ["Peril", "AAL", "Share of AAL", "Std dev", "P(loss in a year)", `${name} 1 in 100`, `${name} 1 in 250`, "Own TVaR", "co-TVaR", "Share of TVaR", "Marginal TVaR"];
    const point = (peril, rp) => peril.ep.find((p) => p.return_period === rp) || {};
    const quantile = (peril, rp) => { const p = point(peril, rp); return el("td", {}, compact(p[basis]), ...limits(p[basis + "_low"], p[basis + "_high"])); };
    const figure = (peril, key) => el("td", {}, compact(peril[key]), ...plusMinus(peril[key + "_se"]));
    const rows = perilsOf().map((peril) => el("tr", {}, el("th", { scope: "row", class: "text" }, peril.peril),
      figure(peril, "aal"), el("td", {}, percent(ratio(peril.aal, whole.aal))), figure(peril, "sd"),
      el("td", {}, percent(peril.prob_loss), ...limits(peril.prob_loss_low, peril.prob_loss_high, between)),
      quantile(peril, 100), quantile(peril, 250), figure(peril, "tvar"), figure(peril, "co_tvar"),
      el("td", {}, percent(ratio(peril.co_tvar, whole.tvar))), figure(peril, "marginal_tvar")));
    const all = ["All perils", compact(whole.aal), percent(1), "", "", "", "", "", compact(whole.tvar), percent(1), ""];
    $("peril-table").replaceChildren(
      el("caption", { class: "visually-hidden" }, `Perils of ${data.groups[perilState.group].name}, with standard errors and 95% limits`),
      el("thead", {}, el("tr", {}, ...heads.map((title, i) => el("th", { scope: "col", class: i ? "" : "text" }, title)))),
      el("tbody", {}, ...rows), el("tfoot", {}, el("tr", {}, ...all.map((text, i) => el("td", { class: i ? "" : "text" }, text)))));
    $("peril-title").textContent = (basis === "oep" ? "Largest event of a year" : "Sum of a year") + ", each peril by itself, with 95% limits";
  }
  if (hasPerils) { perilState.group = withPerils[0]; perilViews(); perilTable(); } else $("perils").hidden = true;
  const hasCurves = data.groups.length > 0;
  if (hasCurves) epTable(); else $("exceedance").hidden = true;
  if (!n) $("contributions").hidden = true;

  // ================= charts =================
  const library = el("script");
  library.nonce = nonce;
  library.textContent = await unpack("chart-library");
  document.head.append(library);
  const Plotly = window.Plotly;
  const font = { family: getComputedStyle(document.body).fontFamily, size: 13, color: "#17212b" };
  const config = { responsive: true, displayModeBar: false };
  const base = { font, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", hoverlabel: { bgcolor: "#fff", bordercolor: "#b9c0c6", font }, dragmode: false };
  const unitOf = (largest) => largest >= 1e9 ? [1e9, "bn"] : largest >= 1e6 ? [1e6, "m"] : largest >= 1e3 ? [1e3, "k"] : [1, ""];
  const scaled = (values, scale) => values.map((value) => value === null ? null : value / scale);
  const peak = (values) => values.reduce((a, b) => Math.max(a, b || 0), 0);

  function epChart() {
    const group = data.groups[epState.group], basis = epState.basis;
    const present = views.filter(([v]) => group.views[v]?.curve.return_period.length);
    const [scale, suffix] = unitOf(peak(present.flatMap(([v]) => group.views[v].curve[basis])));
    const traces = [];
    for (const [view] of present.filter(([v]) => v !== "ceded")) {
      const curve = group.views[view].curve;
      const common = { x: curve.return_period, mode: "lines", line: { width: 0 }, hoverinfo: "skip", showlegend: false };
      traces.push({ ...common, y: scaled(curve[basis + "_low"], scale) },
        { ...common, y: scaled(curve[basis + "_high"], scale), fill: "tonexty", fillcolor: fills[view] });
    }
    for (const [view, title] of present) {
      const curve = group.views[view].curve;
      traces.push({ x: curve.return_period, y: scaled(curve[basis], scale), name: title, mode: "lines", customdata: curve[basis].map(compact),
        line: { color: colours[view], width: view === "ceded" ? 1.6 : 2.6, dash: view === "ceded" ? "5px,4px" : "solid" },
        hovertemplate: "%{customdata}<extra>" + title + "</extra>" });
    }
    const marks = [100, 250], last = Math.min(1000, peak(present.flatMap(([v]) => group.views[v].curve.return_period)) || 1000);
    Plotly.react($("ep-chart"), traces, { ...base,
      margin: { l: 64, r: 18, t: 34, b: 48 }, hovermode: "x unified",
      legend: { orientation: "h", x: 0, y: 1.01, yanchor: "bottom", xanchor: "left", traceorder: "normal" },
      xaxis: { type: "log", range: [Math.log10(2), Math.log10(last)], tickvals: [2, 5, 10, 20, 50, 100, 250, 500, 1000],
        title: { text: "Return period, years (log scale)", font: { size: 12.5, color: "#51606e" } }, showgrid: false, ticks: "outside", tickcolor: "#b9c0c6",
        linecolor: "#17212b", zeroline: false, hoverformat: ",.4~g", unifiedhovertitle: { text: "1 in %{x:,.3~r} years" }, fixedrange: true },
      yaxis: { title: { text: `Loss, ${label(data.currency)} ${suffix}`, font: { size: 12.5, color: "#51606e" } }, rangemode: "tozero", gridcolor: "#e4e7e9", zeroline: false, tickformat: ",~g", nticks: 7, fixedrange: true },
      shapes: marks.filter((rp) => rp < last).map((rp) => ({ type: "line", x0: rp, x1: rp, yref: "paper", y0: 0, y1: 1, line: { color: "#c3c9ce", width: 1, dash: "dot" }, layer: "below" })),
    }, config);
  }

  function dealChart() {
    const order = [...Array(n).keys()].filter((i) => deals.co_tvar[i] !== null).sort((a, b) => deals.co_tvar[b] - deals.co_tvar[a] || a - b).slice(0, 20);
    const [scale, suffix] = unitOf(peak(order.map((i) => deals.co_tvar[i])));
    const y = order.map((_, r) => r);
    const trace = (key, name, rest) => ({ x: scaled(order.map((i) => deals[key][i]), scale), y, name, customdata: order.map((i) => [label(deals.deal_id[i]), compact(deals[key][i])]),
      hovertemplate: `%{customdata[0]}<br>${name} %{customdata[1]}<extra></extra>`, ...rest });
    Plotly.react($("deal-chart"), [
      trace("co_tvar", "co-TVaR", { type: "bar", orientation: "h", marker: { color: "#b3c2d5" } }),
      trace("premium", "Premium", { type: "scatter", mode: "markers", marker: { color: "#b06a1c", size: 8, symbol: "diamond", line: { width: 1, color: "#fff" } } }),
      trace("aal", "AAL", { type: "scatter", mode: "markers", marker: { color: "#17212b", size: 9, symbol: "line-ns", line: { width: 2, color: "#17212b" } } }),
    ], { ...base, margin: { l: 10, r: 14, t: 30, b: 44 }, bargap: 0.34, hovermode: "closest",
      legend: { orientation: "h", x: 0, y: 1.0, yanchor: "bottom", xanchor: "left", traceorder: "normal" },
      xaxis: { title: { text: `${label(data.currency)} ${suffix}`, font: { size: 12.5, color: "#51606e" } }, gridcolor: "#e4e7e9", zeroline: false, rangemode: "tozero", tickformat: ",~g", fixedrange: true },
      yaxis: { tickvals: y, ticktext: order.map((i) => label(clip(`${deals.cedant[i]} · ${deals.deal_id[i]}`, 38)) + " "), range: [order.length - 0.4, -0.6], automargin: true, tickfont: { size: 12 }, showgrid: false, zeroline: false, fixedrange: true },
    }, config);
  }

  function unitChart() {
    const totals = new Map();
    for (let i = 0; i < n; i++) {
      const t = totals.get(deals.business_unit[i]) || { co_tvar: 0, aal: 0, premium: 0 };
      for (const key of ["co_tvar", "aal", "premium"]) t[key] += deals[key][i] || 0;
      totals.set(deals.business_unit[i], t);
    }
    const all = { co_tvar: 0, aal: 0, premium: 0 };
    for (const t of totals.values()) for (const key in all) all[key] += t[key];
    let names = [...totals.keys()].sort((a, b) => totals.get(b).co_tvar - totals.get(a).co_tvar);
    if (names.length > 12) { // the rest together, so that the chart stays legible
      const rest = names.splice(11), other = { co_tvar: 0, aal: 0, premium: 0 };
      for (const name of rest) for (const key in other) other[key] += totals.get(name)[key];
      const title = `${rest.length} others`;
      totals.set(title, other);
      names.push(title);
    }
    const y = names.map((_, r) => r);
    $("unit-chart").style.height = Math.min(640, 110 + 76 * names.length) + "px"; // as many bars, as much room
    const trace = (key, name, color) => ({ type: "bar", orientation: "h", name, y, x: names.map((u) => all[key] ? totals.get(u)[key] / all[key] * 100 : null), marker: { color },
      text: names.map((u) => all[key] ? (totals.get(u)[key] / all[key] * 100).toFixed(0) + "%" : ""), textposition: "outside", cliponaxis: false, textfont: { size: 11.5 },
      customdata: names.map((u) => [label(u), compact(totals.get(u)[key])]), hovertemplate: `%{customdata[0]}<br>${name} %{customdata[1]}, %{x:.1f}%<extra></extra>` });
    Plotly.react($("unit-chart"), [trace("co_tvar", "co-TVaR", "#1f3f66"), trace("aal", "AAL", "#8fa3bb"), trace("premium", "Premium", "#d3a56d")],
      { ...base, margin: { l: 10, r: 34, t: 30, b: 44 }, barmode: "group", bargap: 0.32, bargroupgap: 0.08, hovermode: "closest",
        legend: { orientation: "h", x: 0, y: 1.0, yanchor: "bottom", xanchor: "left", traceorder: "normal" },
        xaxis: { ticksuffix: "%", gridcolor: "#e4e7e9", zeroline: false, rangemode: "tozero", fixedrange: true, title: { text: "Share of the portfolio", font: { size: 12.5, color: "#51606e" } } },
        yaxis: { tickvals: y, ticktext: names.map((u) => label(clip(u, 24)) + " "), range: [names.length - 0.5, -0.5], automargin: true, showgrid: false, zeroline: false, fixedrange: true },
      }, config);
  }

  function perilChart() {
    const basis = perilState.basis, perils = perilsOf();
    const shown = perils.map((peril) => peril.ep.filter((p) => typeof p[basis] === "number"));
    const [scale, suffix] = unitOf(peak(shown.flatMap((points) => points.map((p) => p[basis]))));
    const style = (i) => ({ color: palette[i % palette.length], dash: i < palette.length ? "solid" : "dot" });
    const traces = perils.map((peril, i) => ({ x: shown[i].map((p) => p.return_period), y: scaled(shown[i].map((p) => p[basis]), scale),
      name: label(clip(peril.peril, 28)), mode: "lines+markers", line: { ...style(i), width: 2.2 }, marker: { size: 5, color: style(i).color },
      error_y: { type: "data", symmetric: false, thickness: 1, width: 3, color: style(i).color,
        array: shown[i].map((p) => typeof p[basis + "_high"] === "number" ? (p[basis + "_high"] - p[basis]) / scale : 0),
        arrayminus: shown[i].map((p) => typeof p[basis + "_low"] === "number" ? (p[basis] - p[basis + "_low"]) / scale : 0) },
      customdata: shown[i].map((p) => compact(p[basis])), hovertemplate: "%{customdata}<extra>" + label(clip(peril.peril, 28)) + "</extra>" }));
    Plotly.react($("peril-chart"), traces, { ...base, margin: { l: 64, r: 18, t: 34, b: 48 }, hovermode: "x unified",
      legend: { orientation: "h", x: 0, y: 1.01, yanchor: "bottom", xanchor: "left", traceorder: "normal" },
      xaxis: { type: "log", tickvals: [2, 5, 10, 20, 50, 100, 250, 500, 1000], title: { text: "Return period, years (log scale)", font: { size: 12.5, color: "#51606e" } },
        showgrid: false, ticks: "outside", tickcolor: "#b9c0c6", linecolor: "#17212b", zeroline: false, hoverformat: ",.4~g", unifiedhovertitle: { text: "1 in %{x:,.3~r} years" }, fixedrange: true },
      yaxis: { title: { text: `Loss, ${label(data.currency)} ${suffix}`, font: { size: 12.5, color: "#51606e" } }, rangemode: "tozero", gridcolor: "#e4e7e9", zeroline: false, tickformat: ",~g", nticks: 7, fixedrange: true },
    }, config);
    const whole = data.groups[perilState.group].views[perilState.view], y = perils.map((_, r) => r);
    const share = (key, of, name, color) => { const parts = perils.map((peril) => ratio(peril[key], whole[of]));
      return { type: "bar", orientation: "h", name, y, x: parts.map((part) => part === null ? null : part * 100), marker: { color },
        text: parts.map((part) => percent(part, 0)), textposition: "outside", cliponaxis: false, textfont: { size: 11.5 },
        customdata: perils.map((peril) => [label(peril.peril), compact(peril[key])]), hovertemplate: `%{customdata[0]}<br>${name} %{customdata[1]}, %{x:.1f}%<extra></extra>` }; };
    Plotly.react($("peril-shares"), [share("co_tvar", "tvar", "of TVaR", "#1f3f66"), share("aal", "aal", "of AAL", "#8fa3bb")], { ...base,
      margin: { l: 10, r: 34, t: 30, b: 44 }, barmode: "group", bargap: 0.32, bargroupgap: 0.08, hovermode: "closest",
      legend: { orientation: "h", x: 0, y: 1.0, yanchor: "bottom", xanchor: "left", traceorder: "normal" },
      xaxis: { ticksuffix: "%", gridcolor: "#e4e7e9", zeroline: false, rangemode: "tozero", fixedrange: true },
      yaxis: { tickvals: y, ticktext: perils.map((peril) => label(clip(peril.peril, 22)) + " "), range: [perils.length - 0.5, -0.5], automargin: true, showgrid: false, zeroline: false, fixedrange: true },
    }, config);
  }

  const drawPerils = () => { perilViews(); perilTable(); perilChart(); };
  $("peril-group").addEventListener("change", (event) => { perilState.group = Number(event.target.value); drawPerils(); });
  $("peril-view").addEventListener("change", (event) => { perilState.view = event.target.value; drawPerils(); });
  document.querySelectorAll("input[name=peril-basis]").forEach((radio) => radio.addEventListener("change", () => { perilState.basis = radio.value; drawPerils(); }));
  $("ep-group").addEventListener("change", (event) => { epState.group = Number(event.target.value); epTable(); epChart(); });
  document.querySelectorAll("input[name=basis]").forEach((radio) => radio.addEventListener("change", () => { epState.basis = radio.value; epTable(); epChart(); }));
  if (hasCurves) epChart();
  if (hasPerils) perilChart();
  if (n) { dealChart(); unitChart(); }

  // paper is narrower than the screen: A4 less its margins is 186 mm, about 700 CSS pixels
  const charts = ["ep-chart", "peril-chart", "peril-shares", "deal-chart", "unit-chart"].map($).filter((node) => node.data);
  addEventListener("beforeprint", () => charts.forEach((node) => Plotly.relayout(node, { width: 690 })));
  addEventListener("afterprint", () => charts.forEach((node) => Plotly.relayout(node, { autosize: true, width: null })));
  document.documentElement.dataset.ready = "true";
})();
