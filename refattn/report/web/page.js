// The page of one structure: what `refattn explain` wrote into #data, drawn by Plotly; rotate, choose a score, hover.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const plot = document.getElementById("plot");
const menu = document.getElementById("score");
const dark = matchMedia("(prefers-color-scheme: dark)");
const CAMERAS = Object.fromEntries(Object.entries(data.views).map(([name, [, up, eye]]) => [
  name, { eye: point(eye), up: point(up), projection: { type: "orthographic" } },
]));
const FILLED = 1.9; // sides of the cube that holds the structure; the plot's shorter side shows two
const SMALLEST = 4, LARGEST = 150; // pixels, diameter of a ball
const DISC = 0.85; // diameter of Plotly's disc, in parts of its size
const BOND = 0.16; // Å
const MOST_LETTERS = 80; // balls with the symbol of their element, unless there is only one
const LEAST_SIDE = 2.5; // Å, half of the cube for a single atom
const lettered = data.site.length <= MOST_LETTERS && new Set(data.elements).size > 1;

function point([x, y, z]) { return { x, y, z }; }
const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const number = (value) => (value === null ? "–" : Number(value).toPrecision(5).replace("-", "−"));
const title = (column) => column.text + (column.unit ? ` (${column.unit})` : "");
const axis = (k) => data.position.map((point) => point[k]);

// One trace for any number of lines: a gap after each.
function lines(pairs, style) {
  const along = (k) => pairs.flatMap(([start, end]) => [start[k], end[k], null]);
  return { type: "scatter3d", mode: "lines", x: along(0), y: along(1), z: along(2), line: style, hoverinfo: "skip" };
}

function hoverText(site) {
  const rows = data.columns.map((column) => `${column.name}: ${number(column.values[site])}`);
  return [`<b>${data.elements[site]}${site}</b>`, ...rows].join("<br>");
}

// Å from the middle of the cube to its faces; however it is turned, the structure stays inside.
function halfSide() {
  const corners = [...data.position, ...data.box.flat()];
  return Math.max(LEAST_SIDE, Math.max(...corners.map((point) => Math.hypot(...point))) + Math.max(...data.radius));
}

const cube = (side) => ({ x: side, y: side, z: side });
const scene = () => plot.layout ? plot.layout.scene : { camera: Object.values(CAMERAS)[0], aspectratio: cube(filled()) };
const filled = () => FILLED * Math.min(1, plot.clientWidth / plot.clientHeight);
const pixels = () => (plot.clientHeight / 2) * scene().aspectratio.x / (2 * halfSide()); // per Å

function ballSizes() {
  return data.radius.map((radius) => Math.min(LARGEST, Math.max(SMALLEST, 2 * radius * pixels())) / DISC);
}

const letterSize = () => Math.max(8, 0.8 * pixels() * Math.min(...data.radius));
const bondWidth = () => Math.max(2, BOND * pixels());

// From the surface of one ball to that of the other.
function bondEnds([i, j]) {
  const [a, b] = [data.position[i], data.position[j]];
  const length = Math.hypot(...a.map((x, k) => b[k] - x));
  const at = (part) => a.map((x, k) => x + part * (b[k] - x));
  return [at(0.95 * data.radius[i] / length), at(1 - 0.95 * data.radius[j] / length)];
}

function marker(column) {
  const wrapped = title(column).replace(/(.{18,}?) /g, "$1<br>") + "<br>\u00a0";
  return {
    size: ballSizes(), color: data.site.map((site) => column.values[site]),
    colorscale: data.colours[column.signed ? "signed" : "plain"], cmin: column.low, cmax: column.high,
    opacity: 1, line: { color: style("--edge"), width: 1 }, showscale: true,
    colorbar: {
      title: { text: wrapped, side: "top", font: { size: 13 } }, tickfont: { size: 12 },
      thickness: 14, len: 0.75, outlinewidth: 0,
    },
  };
}

// Black on the bright colours, white on the dark ones.
function letterColours(column) {
  const stops = data.colours[column.signed ? "signed" : "plain"];
  return data.site.map((site) => {
    const part = column.values[site] === null ? 0.5 : (column.values[site] - column.low) / (column.high - column.low);
    const colour = parseInt(stops[Math.round(part * (stops.length - 1))][1].slice(1), 16);
    const grey = 0.299 * (colour >> 16) + 0.587 * ((colour >> 8) & 255) + 0.114 * (colour & 255);
    return grey > 128 ? "#000000" : "#ffffff";
  });
}

function traces(column) {
  const atoms = {
    type: "scatter3d", mode: lettered ? "markers+text" : "markers",
    x: axis(0), y: axis(1), z: axis(2), marker: marker(column),
    text: data.site.map((site) => data.elements[site]), textposition: "middle center",
    textfont: { color: letterColours(column), size: letterSize() },
    customdata: data.site.map(hoverText), hovertemplate: "%{customdata}<extra></extra>",
  };
  const bonds = data.bonds.map(bondEnds);
  const box = lines(data.box, { color: style("--bond"), width: 2 });
  return [lines(bonds, { color: style("--bond"), width: bondWidth() }), box, atoms];
}

function layout({ camera, aspectratio }) {
  const hidden = { visible: false, range: [-halfSide(), halfSide()] };
  return {
    paper_bgcolor: style("--back"), font: { color: style("--text") }, showlegend: false, uirevision: "keep",
    margin: { l: 0, r: 0, t: 0, b: 0 },
    scene: { xaxis: hidden, yaxis: hidden, zaxis: hidden, aspectmode: "manual", camera, aspectratio },
  };
}

const chosen = () => data.columns[menu.selectedIndex];
const say = (text) => { document.getElementById("note").textContent = text; };

function redraw() {
  say(data.notes[chosen().name] || "");
  drawn = Plotly.react(plot, traces(chosen()), layout(scene()));
}

function look(name) {
  return Plotly.relayout(plot, { "scene.camera": CAMERAS[name], "scene.aspectratio": cube(filled()) });
}

function fillTable(table) {
  const head = table.createTHead().insertRow();
  for (const text of ["site", "element", ...data.columns.map((column) => column.name)]) {
    const cell = document.createElement("th");
    const button = document.createElement("button");
    button.textContent = text;
    if (text !== "element") cell.className = "number";
    cell.append(button);
    head.append(cell);
  }
  const body = table.createTBody();
  data.elements.forEach((element, site) => {
    const row = body.insertRow();
    const add = (text, value) => {
      const cell = row.insertCell();
      cell.textContent = text;
      if (value !== undefined) { cell.className = "number"; cell.dataset.value = value === null ? "" : value; }
    };
    add(site, site);
    add(element);
    for (const column of data.columns) add(number(column.values[site]), column.values[site]);
  });
}

for (const column of data.columns) menu.add(new Option(`${column.name} – ${title(column)}`, column.name));
menu.value = data.first;
menu.addEventListener("change", redraw);
for (const name of Object.keys(CAMERAS)) {
  const button = document.createElement("button");
  button.textContent = name;
  button.addEventListener("click", () => look(name));
  document.getElementById("views").append(button, " ");
}
fillTable(document.getElementById("sites"));
say(data.notes[data.first] || "");
let drawn = Plotly.newPlot(plot, traces(chosen()), layout(scene()), {
  displaylogo: false, responsive: true, modeBarButtons: [["toImage", "resetCameraDefault3d"]],
});
plot.on("plotly_relayout", () => { // balls and letters grow with the rest
  if (plot.data[2].marker.size[0] === ballSizes()[0]) return;
  drawn = Plotly.restyle(plot, { "marker.size": [ballSizes()], "textfont.size": letterSize() }, [2]);
});
dark.addEventListener("change", redraw);
