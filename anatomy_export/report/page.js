(function () {
  "use strict";
  const ALL = -1;
  // Okabe and Ito's palette, in an order that keeps contrast on white and on black.
  const LIGHT = ["#0072b2", "#d55e00", "#009e73", "#a3427a", "#b27700", "#2f8fc4", "#000000"];
  const DARK = ["#56b4e9", "#e69f00", "#2fc79b", "#e08fc0", "#f0e442", "#ff7f3f", "#ffffff"];
  const plots = JSON.parse(document.getElementById("plots").textContent);
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 640px)");
  const choice = { probe: ALL, layer: ALL };

  function css(name) { return getComputedStyle(document.documentElement).getPropertyValue(name).trim(); }
  function color(style) { const palette = dark.matches ? DARK : LIGHT; return palette[style % palette.length]; }
  function faded(hex, share) {
    const part = (at) => parseInt(hex.slice(at, at + 2), 16);
    return `rgba(${part(1)},${part(3)},${part(5)},${share})`;
  }
  function chosen(plot, kind) { return choice[kind] < plot[kind + "s"] ? choice[kind] : ALL; }
  function seen(plot, meta) {
    return (meta.probes === null || meta.probes.includes(chosen(plot, "probe")))
      && (meta.layers === null || meta.layers.includes(chosen(plot, "layer")));
  }

  function painted(trace, width) {
    const meta = trace.meta, own = { ...trace };
    if (meta.draw === "heat") {
      own.colorbar = { ...trace.colorbar, tickfont: { color: css("--text") }, outlinewidth: 0 };
      if (width / trace.x.length < 36) own.texttemplate = "";
      if (narrow.matches) own.colorbar = { ...own.colorbar, title: { text: "" }, thickness: 10 };
      return own;
    }
    const main = color(meta.style);
    if (meta.draw === "edges") own.line = { ...trace.line, color: faded(css("--edge"), 0.3) };
    else if (trace.line) own.line = { ...trace.line, color: main };
    if (meta.draw === "band") own.fillcolor = faded(main, 0.16);
    if (trace.marker) own.marker = { ...trace.marker, color: main };
    if (meta.draw === "bar") {
      const pattern = { ...trace.marker.pattern, fgcolor: main, bgcolor: css("--card"), fillmode: "overlay" };
      own.marker = { ...own.marker, color: meta.open ? faded(main, 0.35) : main, pattern, line: { color: main, width: 1 } };
    }
    if (trace.error_y) own.error_y = { ...trace.error_y, color: faded(main, 0.7) };
    return own;
  }

  function layout(plot, width) {
    const text = css("--text"), grid = css("--grid"), small = narrow.matches;
    const axis = { gridcolor: grid, zerolinecolor: grid, linecolor: css("--line"), automargin: true, ticks: "" };
    const base = {
      height: plot.height, autosize: true, paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
      font: { color: text, family: "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif", size: small ? 12 : 13 },
      margin: { l: small ? 8 : 16, r: small ? 8 : 16, t: 8, b: small ? 8 : 16 },
      hovermode: "closest", dragmode: small ? false : "zoom",
      modebar: { bgcolor: "rgba(0,0,0,0)", color: css("--quiet"), activecolor: css("--accent") },
      hoverlabel: { bgcolor: css("--card"), bordercolor: css("--line"), font: { color: text, size: 13 }, align: "left" },
      legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom", font: { size: small ? 11 : 12 }, bgcolor: "rgba(0,0,0,0)" },
      barmode: plot.layout.barmode, bargap: 0.3,
    };
    for (const name of ["xaxis", "yaxis"]) {
      const own = plot.layout[name];
      base[name] = { ...axis, ...own, title: { ...own.title, standoff: 10 } };
      base[name].separatethousands = true;
      if (own.tickvals && name === "xaxis") {
        const room = Math.max(2, Math.floor(width / 30));
        const step = Math.ceil(own.tickvals.length / room);
        const shown = own.tickvals.filter((value) => value % step === 0);
        base[name] = { ...base[name], tickvals: shown, ticktext: shown.map((value) => own.ticktext[value]), tickangle: 0 };
      }
    }
    const layer = chosen(plot, "layer");
    if (plot.layout.by_layer && layer !== ALL) base.yaxis.range = [layer + 1.5, layer - 1.5];
    if (plot.layout.square) {
      base.height = Math.min(plot.height, width + (small ? -10 : 0));
      base.yaxis.scaleanchor = "x";
      base.yaxis.constrain = base.xaxis.constrain = "domain";
      base.xaxis.constraintoward = "left";
      base.xaxis.showgrid = base.yaxis.showgrid = false;
    }
    return base;
  }

  function draw(element) {
    const plot = plots[element.dataset.plot];
    const data = plot.data.filter((trace) => seen(plot, trace.meta)).map((trace) => painted(trace, element.clientWidth));
    const config = { displaylogo: false, responsive: true, displayModeBar: !narrow.matches,
      modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]] };
    const own = layout(plot, element.clientWidth);
    if (!data.some((trace) => trace.meta.draw !== "band")) {
      own.annotations = [{ text: "nothing strong here", showarrow: false, xref: "paper", yref: "paper", x: 0.5, y: 0.5 }];
    }
    return Plotly.react(element, data, own, config);
  }

  function visible(element) { return element.offsetParent !== null; }
  function drawAll() { document.querySelectorAll(".plot").forEach((one) => { if (visible(one)) draw(one); }); }

  function showRows() {
    document.querySelectorAll("tr[data-choices]").forEach((row) => {
      const own = JSON.parse(row.dataset.choices);
      row.hidden = !seen({ probes: own.reach[0], layers: own.reach[1] }, own);
    });
  }

  function showSources() {
    const off = new Set();
    document.querySelectorAll("input[data-source]").forEach((box) => { if (!box.checked) off.add(box.dataset.source); });
    document.querySelectorAll("[data-of]").forEach((card) => { card.hidden = off.has(card.dataset.of); });
    document.querySelectorAll("section").forEach((section) => {
      section.hidden = ![...section.querySelectorAll("[data-of]")].some((card) => !card.hidden);
    });
  }

  document.querySelectorAll("select[data-choice]").forEach((select) => {
    select.addEventListener("change", () => {
      choice[select.dataset.choice] = Number(select.value);
      showRows();
      drawAll();
    });
  });
  document.querySelectorAll("input[data-source]").forEach((box) => {
    box.addEventListener("change", () => { showSources(); drawAll(); });
  });
  for (const query of [dark, narrow]) query.addEventListener("change", drawAll);
  showRows();
  drawAll();
  document.documentElement.dataset.drawn = "yes";
})();
