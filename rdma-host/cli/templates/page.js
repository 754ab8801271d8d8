"use strict";
(() => {
  const all = (node, selector) => [...node.querySelectorAll(selector)];

  // Values of the nearest point, and of the other lines at the same place.
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  document.body.append(tip);

  const readCurve = (group) => {
    const places = group.querySelector("path").getAttribute("d").slice(1).split("L");
    const values = group.dataset.values.split("|");
    const points = places.map((place, index) => {
      const [x, y] = place.split(" ").map(Number);
      const [x_text, y_text, remark] = values.slice(3 * index, 3 * index + 3);
      return { x, y, x_text, y_text, remark, name: group.dataset.name };
    });
    all(group, "title").forEach((title) => title.remove());
    return group.dataset.values ? points : [];
  };

  const readPlot = (group) => {
    const [left, right, top, bottom] =
      ["left", "right", "top", "bottom"].map((side) => Number(group.dataset[side]));
    return { group, left, right, top, bottom, curves: all(group, ".curve").map(readCurve) };
  };

  const shown = (svg, points) => {
    const lines = [`${svg.dataset.x} ${points[0].x_text}`];
    for (const { name, y_text, remark } of points) {
      lines.push(`${name} ${y_text}${remark ? ` (${remark})` : ""}`);
    }
    return lines;
  };

  const follow = (svg) => {
    let plots;
    const cross = document.createElementNS(svg.namespaceURI, "path");
    cross.setAttribute("class", "cross");
    svg.append(cross);
    const hide = () => {
      tip.hidden = true;
      cross.setAttribute("d", "");
    };
    svg.addEventListener("pointerleave", hide);
    svg.addEventListener("pointermove", (event) => {
      plots ??= all(svg, ".plot").map(readPlot);
      const frame = svg.getBoundingClientRect();
      const scale = svg.viewBox.baseVal.width / frame.width;
      const x = (event.clientX - frame.left) * scale;
      const y = (event.clientY - frame.top) * scale;
      const isIn = (plot) => x >= plot.left - 8 && x <= plot.right + 8
        && y >= plot.top - 8 && y <= plot.bottom + 8;
      const plot = plots.find(isIn);
      const points = plot ? plot.curves.flat() : [];
      if (points.length === 0) {
        hide();
        return;
      }
      const distance = (point) => Math.hypot(point.x - x, (point.y - y) / 4);
      const nearest = points.reduce((a, b) => (distance(b) < distance(a) ? b : a));
      const same = points.filter((point) => point.x_text === nearest.x_text);
      same.sort((a, b) => a.y - b.y);
      cross.setAttribute("d", `M${nearest.x} ${plot.top}V${plot.bottom}`
        + same.map((point) => `M${point.x - 6} ${point.y}h12`).join(""));
      tip.replaceChildren(...shown(svg, same).map((text) => {
        const line = document.createElement("div");
        line.textContent = text;
        return line;
      }));
      tip.hidden = false;
      const most = document.documentElement.clientWidth - tip.offsetWidth - 8;
      tip.style.left = `${Math.max(4, Math.min(event.clientX + 14, most))}px`;
      tip.style.top = `${event.clientY > 120 ? event.clientY - tip.offsetHeight - 14 : event.clientY + 18}px`;
    });
  };
  all(document, "figure svg[data-x]").forEach(follow);

  // A chart as a file.
  const save = (figure) => {
    const svg = figure.querySelector("svg").cloneNode(true);
    all(svg, ".cross").forEach((cross) => cross.remove());
    const { width, height } = svg.viewBox.baseVal;
    svg.setAttribute("width", width);
    svg.setAttribute("height", height);
    const style = document.createElementNS(svg.namespaceURI, "style");
    style.textContent = document.getElementById("chart-style").textContent;
    const description = document.createElementNS(svg.namespaceURI, "desc");
    description.textContent = document.title;
    svg.prepend(description, style);
    const text = new XMLSerializer().serializeToString(svg);
    const link = document.createElement("a");
    link.download = `${figure.dataset.name}.svg`;
    link.href = URL.createObjectURL(new Blob([text], { type: "image/svg+xml" }));
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  for (const figure of all(document, "figure")) {
    const button = document.createElement("button");
    button.textContent = "Save SVG";
    button.addEventListener("click", () => save(figure));
    figure.append(button);
  }

  // Points of a sweep are closed at first, and open on paper.
  const details = all(document, "details");
  let open = [];
  details.forEach((it) => { it.open = false; });
  addEventListener("beforeprint", () => {
    open = details.filter((it) => it.open);
    details.forEach((it) => { it.open = true; });
  });
  addEventListener("afterprint", () => {
    details.forEach((it) => { it.open = open.includes(it); });
  });
})();
