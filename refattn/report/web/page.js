// The page of one structure: what `refattn explain` wrote into #data, drawn on a canvas; rotate, choose a score, hover.
"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const plot = document.getElementById("plot");
const menu = document.getElementById("score");
const numbered = document.getElementById("numbered");
const dark = matchMedia("(prefers-color-scheme: dark)");
const canvas = plot.querySelector("canvas");
const told = plot.querySelector(".hovertext");
const pen = canvas.getContext("2d", { willReadFrequently: true }); // drawn by the processor, thousands of balls too
const FILLED = 0.95; // part of the shorter side that the structure fills, however it is turned
const BAR = 120; // pixels, at the right, for the colour bar
const BOND = 0.16; // Å
const FOG = 0.65; // part of the background in the bonds that are farthest away
const PIECES = 16; // of an edge of the cell, sorted by depth
const MOST_LETTERS = 80; // balls with the symbol of their element, unless there is only one
const LEAST_SIDE = 2.5; // Å, half of the side for a single atom
const TURN = 0.01; // radians for a pixel
const KEYS = { ArrowLeft: [-10, 0], ArrowRight: [10, 0], ArrowUp: [0, -10], ArrowDown: [0, 10] };
const lettered = data.site.length <= MOST_LETTERS && new Set(data.elements).size > 1;

const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const number = (value) => (value === null ? "–" : Number(value).toPrecision(5).replace("-", "−"));
const title = (column) => column.text + (column.unit ? ` (${column.unit})` : "");
const chosen = () => data.columns[menu.selectedIndex];
const stops = () => data.colours[chosen().signed ? "signed" : "plain"];
const parts = (colour) => [1, 3, 5].map((k) => parseInt(colour.slice(k, k + 2), 16));
const mixed = (a, b, part) => `rgb(${parts(a).map((x, k) => Math.round(x + part * (parts(b)[k] - x)))})`;
const between = (a, b, part) => a.map((x, k) => x + part * (b[k] - x));
const apart = (a, b) => Math.hypot(...a.map((x, k) => b[k] - x));

let turn; // rows: the directions to the right, up and to the viewer
let zoom = 1;
let pointed = -1; // ball under the pointer
let balls = []; // [x, y, depth, radius] in pixels, as last drawn
let drawn; // a promise, kept when what was asked for is on the canvas

// Å from the middle to the farthest point; however it is turned, the structure stays inside.
function halfSide() {
  const corners = [...data.position, ...data.box.flat()];
  return Math.max(LEAST_SIDE, Math.max(...corners.map((point) => Math.hypot(...point))) + Math.max(...data.radius));
}

// The edges of the cell in pieces, without those inside of a ball.
function cellPieces() {
  const cut = ([a, b]) => Array.from({ length: PIECES }, (_, k) => [k, k + 1].map((n) => between(a, b, n / PIECES)));
  const inside = (point) => data.position.some((ball, k) => apart(ball, point) < data.radius[k]);
  return data.box.flatMap(cut).filter(([a, b]) => !inside(between(a, b, 0.5)));
}

const side = halfSide();
const cell = cellPieces();
const pixels = () => zoom * FILLED * Math.min(plot.clientWidth - BAR, plot.clientHeight) / (2 * side); // per Å

function seen(point) {
  const [x, y, near] = turn.map((axis) => pixels() * axis.reduce((sum, a, k) => sum + a * point[k], 0));
  return [(plot.clientWidth - BAR) / 2 + x, plot.clientHeight / 2 - y, near];
}

function colourOf(ball) {
  const { values, low, high } = chosen();
  const value = values[data.site[ball]];
  if (value === null) return "#999999";
  const place = Math.min(1, Math.max(0, (value - low) / (high - low))) * (stops().length - 1);
  const first = Math.min(Math.floor(place), stops().length - 2);
  return mixed(stops()[first][1], stops()[first + 1][1], place - first);
}

function drawBall(ball, edge) {
  const [x, y, , radius] = balls[ball];
  const colour = colourOf(ball);
  pen.beginPath();
  pen.arc(x, y, radius, 0, 2 * Math.PI);
  pen.fillStyle = colour;
  pen.fill();
  pen.strokeStyle = edge;
  pen.lineWidth = ball === pointed ? 3 : 1;
  pen.stroke();
  if (!lettered && !numbered.checked) return;
  const [red, green, blue] = colour.startsWith("#") ? parts(colour) : colour.match(/\d+/g).map(Number);
  const text = data.elements[data.site[ball]] + (numbered.checked ? data.site[ball] : "");
  pen.font = `${Math.min(22, Math.max(8, 1.9 * radius / Math.max(1.6, text.length)))}px sans-serif`;
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  pen.fillStyle = 0.299 * red + 0.587 * green + 0.114 * blue > 128 ? "#000" : "#fff";
  pen.fillText(text, x, y);
}

function drawLine([x, y], [u, v], width, colour) {
  pen.beginPath();
  pen.moveTo(x, y);
  pen.lineTo(u, v);
  pen.lineWidth = width;
  pen.strokeStyle = colour;
  pen.stroke();
}

// Everything, farthest first: bonds from the surface of one ball to that of the other, the cell in pieces, balls.
function draw() {
  const ratio = devicePixelRatio || 1;
  canvas.width = ratio * plot.clientWidth;
  canvas.height = ratio * plot.clientHeight;
  pen.setTransform(ratio, 0, 0, ratio, 0, 0);
  const [back, bond, edge] = ["--back", "--bond", "--edge"].map(style);
  pen.fillStyle = back;
  pen.fillRect(0, 0, canvas.width, canvas.height);
  balls = data.position.map((point, k) => [...seen(point), data.radius[k] * pixels()]);
  const far = side * pixels();
  const faded = (depth) => mixed(bond, back, FOG * Math.min(1, Math.max(0, (far - depth) / (2 * far))));
  const things = balls.map(([, , depth], k) => [depth, () => drawBall(k, edge)]);
  const addLine = (a, b, width) => {
    const depth = (a[2] + b[2]) / 2;
    things.push([depth, () => drawLine(a, b, width, faded(depth))]);
  };
  for (const [i, j] of data.bonds) {
    const length = apart(data.position[i], data.position[j]);
    const [start, end] = [data.radius[i] / length, 1 - data.radius[j] / length];
    if (start < end) addLine(between(balls[i], balls[j], start), between(balls[i], balls[j], end), BOND * pixels());
  }
  for (const [a, b] of cell) addLine(seen(a), seen(b), 1.5);
  for (const [, show] of things.sort((a, b) => a[0] - b[0])) show();
  drawBar();
}

// Round numbers from low to high, about five.
function ticks(low, high) {
  const rough = (high - low) / 5;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = power * [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough);
  const first = Math.ceil(low / step - 1e-9);
  const n = Math.floor(high / step + 1e-9) - first + 1;
  return Array.from({ length: n }, (_, k) => Number(((first + k) * step).toPrecision(6)));
}

function drawBar() {
  const { low, high } = chosen();
  const left = plot.clientWidth - BAR + 10;
  const length = Math.min(300, 0.6 * plot.clientHeight);
  const top = (plot.clientHeight - length) / 2 + 20;
  const gradient = pen.createLinearGradient(0, top + length, 0, top);
  for (const [part, colour] of stops()) gradient.addColorStop(part, colour);
  pen.fillStyle = gradient;
  pen.fillRect(left, top, 14, length);
  pen.fillStyle = style("--text");
  pen.font = "12px sans-serif";
  pen.textAlign = "left";
  pen.textBaseline = "middle";
  for (const tick of ticks(low, high)) {
    const y = top + length * (high - tick) / (high - low);
    pen.fillText(String(tick).replace("-", "−"), left + 22, y);
    pen.fillRect(left + 14, y, 4, 1);
  }
  const rows = title(chosen()).match(/.{1,17}(?= |$)|\S+/g).map((text) => text.trim());
  rows.forEach((text, k) => pen.fillText(text, left, top - 18 - 15 * (rows.length - 1 - k)));
}

function redraw() {
  document.getElementById("note").textContent = data.notes[chosen().name] || "";
  drawn = new Promise((done) => requestAnimationFrame(() => { draw(); done(); }));
}

function look(name) {
  turn = data.views[name].map((axis) => [...axis]);
  zoom = 1;
  redraw();
}

// What is in front moves by dx, dy pixels.
function rotate(dx, dy) {
  for (const [axis, angle] of [[0, TURN * dx], [1, -TURN * dy]]) {
    const [c, s] = [Math.cos(angle), Math.sin(angle)];
    const [a, near] = [turn[axis], turn[2]];
    turn[axis] = a.map((x, k) => c * x + s * near[k]);
    turn[2] = near.map((x, k) => c * x - s * a[k]);
  }
  redraw();
}

function pointAt({ offsetX, offsetY }) {
  const under = ([x, y, , radius]) => Math.hypot(x - offsetX, y - offsetY) <= radius;
  const hides = (ball, other) => !other || ball[2] > other[2];
  const nearest = balls.reduce((best, ball, k) => (under(ball) && hides(ball, balls[best]) ? k : best), -1);
  told.hidden = nearest < 0;
  if (nearest >= 0) {
    const site = data.site[nearest];
    const rows = data.columns.map((column) => `${column.name}: ${number(column.values[site])}`);
    told.textContent = [`${data.elements[site]}${site}`, ...rows].join("\n");
    told.style.left = `${Math.min(offsetX + 14, plot.clientWidth - told.offsetWidth - 4)}px`;
    told.style.top = `${Math.min(offsetY + 14, plot.clientHeight - told.offsetHeight - 4)}px`;
  }
  if (nearest !== pointed) { pointed = nearest; redraw(); }
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
numbered.addEventListener("change", redraw);
for (const name of Object.keys(data.views)) {
  const button = document.createElement("button");
  button.textContent = name;
  button.addEventListener("click", () => look(name));
  document.getElementById("views").append(button, " ");
}
document.getElementById("save").addEventListener("click", () => {
  const link = document.createElement("a");
  link.download = `${document.title}.png`;
  link.href = canvas.toDataURL();
  link.click();
});
canvas.addEventListener("pointerdown", (event) => canvas.setPointerCapture(event.pointerId));
canvas.addEventListener("pointermove", (event) => {
  if (event.buttons) rotate(event.movementX, event.movementY);
  else pointAt(event);
});
canvas.addEventListener("pointerleave", () => { told.hidden = true; });
canvas.addEventListener("wheel", (event) => {
  event.preventDefault();
  zoom = Math.min(20, Math.max(0.2, zoom * Math.exp(-0.001 * event.deltaY)));
  redraw();
}, { passive: false });
canvas.addEventListener("keydown", (event) => {
  if (!(event.key in KEYS)) return;
  event.preventDefault();
  rotate(...KEYS[event.key]);
});
new ResizeObserver(redraw).observe(plot);
dark.addEventListener("change", redraw);
fillTable(document.getElementById("sites"));
look(Object.keys(data.views)[0]);
