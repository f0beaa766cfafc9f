// The page of one structure: what `refattn explain` wrote into #data, drawn by Plotly; rotate, choose a score, hover.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const plot = document.getElementById("plot");
const menu = document.getElementById("score");
const dark = matchMedia("(prefers-color-scheme: dark)");
const EYE = 1.5; // distance of the camera, in sides of the cube that holds the structure
const CAMERAS = {
  front: { eye: { x: 0, y: 0, z: EYE }, up: { x: 0, y: 1, z: 0 } },
  top: { eye: { x: 0, y: EYE, z: 0 }, up: { x: 0, y: 0, z: -1 } },
  side: { eye: { x: EYE, y: 0, z: 0 }, up: { x: 0, y: 1, z: 0 } },
};
const HEIGHT = 2 * EYE * Math.tan(Math.PI / 8); // what the camera sees, in sides of the cube
const SMALLEST = 4, LARGEST = 48; // pixels, diameter of a ball

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
  return Math.max(...corners.map((point) => Math.hypot(...point))) + Math.max(...data.radius);
}

function ballSizes() {
  const scale = plot.clientHeight / (HEIGHT * 2 * halfSide()); // pixels per Å
  return data.radius.map((radius) => Math.min(LARGEST, Math.max(SMALLEST, 2 * radius * scale)));
}

function marker(column) {
  const wrapped = title(column).replace(/(.{18,}?) /g, "$1<br>");
  return {
    size: ballSizes(), color: data.site.map((site) => column.values[site]),
    colorscale: data.colours[column.signed ? "signed" : "plain"], cmin: column.low, cmax: column.high,
    opacity: 1, line: { color: style("--edge"), width: 1 }, showscale: true,
    colorbar: { title: { text: wrapped, side: "top", font: { size: 13 } }, thickness: 14, len: 0.75, tickfont: { size: 12 } },
  };
}

function traces(column) {
  const atoms = {
    type: "scatter3d", mode: "markers", x: axis(0), y: axis(1), z: axis(2), marker: marker(column),
    text: data.site.map(hoverText), hovertemplate: "%{text}<extra></extra>",
  };
  const bonds = data.bonds.map(([i, j]) => [data.position[i], data.position[j]]);
  return [lines(bonds, { color: style("--bond"), width: 5 }), lines(data.box, { color: style("--bond"), width: 2 }), atoms];
}

function layout(camera) {
  const hidden = { visible: false, range: [-halfSide(), halfSide()] };
  const projection = { type: "orthographic" };
  return {
    paper_bgcolor: style("--back"), font: { color: style("--text") }, showlegend: false, uirevision: "keep",
    margin: { l: 0, r: 0, t: 0, b: 0 },
    scene: { xaxis: hidden, yaxis: hidden, zaxis: hidden, aspectmode: "cube", camera: { ...camera, projection } },
  };
}

const chosen = () => data.columns[menu.selectedIndex];
const say = (text) => { document.getElementById("note").textContent = text; };

function redraw() {
  say(data.notes[chosen().name] || "");
  return Plotly.react(plot, traces(chosen()), layout(plot.layout.scene.camera));
}

function look(name) {
  return Plotly.relayout(plot, { "scene.camera": { ...CAMERAS[name], projection: { type: "orthographic" } } });
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
for (const button of document.querySelectorAll("button[data-view]")) {
  button.addEventListener("click", () => look(button.dataset.view));
}
fillTable(document.getElementById("sites"));
say(data.notes[data.first] || "");
Plotly.newPlot(plot, traces(chosen()), layout(CAMERAS.front), { displaylogo: false, responsive: true });
dark.addEventListener("change", redraw);
