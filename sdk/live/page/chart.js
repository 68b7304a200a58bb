// The table of stages: name, a small moving chart of the last half minute, median and 99th percentile.

const KEPT = 60; // statistics, two a second
const WORDS = { send: "capture to wire" }; // what is no stage alone

export class Stages {
  constructor(body) {
    this.body = body;
    this.rows = new Map();
  }

  add(stages) {
    const names = stages.map((stage) => stage.name);
    for (const stage of stages) {
      const row = this.rows.get(stage.name) ?? this.made(stage.name);
      row.seen.push([stage.p50, stage.p99]);
      if (row.seen.length > KEPT) row.seen.shift();
      row.middle.textContent = told(stage.p50);
      row.late.textContent = told(stage.p99);
      this.draw(row);
    }
    for (const [name, row] of this.rows) row.line.hidden = !names.includes(name);
    const lines = names.map((name) => this.rows.get(name).line);
    if (lines.some((line, index) => this.body.children[index] !== line)) this.body.prepend(...lines);
  }

  made(name) {
    const line = document.createElement("tr");
    const cells = ["td", "td", "td", "td"].map((tag) => line.appendChild(document.createElement(tag)));
    cells[0].textContent = WORDS[name] ?? name;
    const canvas = cells[1].appendChild(document.createElement("canvas"));
    cells[1].setAttribute("aria-hidden", "true");
    this.body.append(line);
    const row = { line, canvas, middle: cells[2], late: cells[3], seen: [] };
    this.rows.set(name, row);
    return row;
  }

  draw({ canvas, seen }) {
    const ratio = window.devicePixelRatio || 1;
    const [width, height] = [canvas.clientWidth * ratio, canvas.clientHeight * ratio].map(Math.round);
    if (!width) return;
    if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    const context = canvas.getContext("2d");
    const top = 1.15 * Math.max(1e-3, ...seen.map(([, late]) => late));
    const x = (index) => width - ((seen.length - 1 - index) / (KEPT - 1)) * width;
    const y = (value) => height - ratio - (value / top) * (height - 2 * ratio);
    context.clearRect(0, 0, width, height);
    context.strokeStyle = context.fillStyle = getComputedStyle(canvas).getPropertyValue("--chart");
    context.lineJoin = "round";
    context.globalAlpha = 0.16; // up to the 99th percentile
    context.beginPath();
    context.moveTo(x(0), height);
    seen.forEach(([, late], index) => context.lineTo(x(index), y(late)));
    context.lineTo(x(seen.length - 1), height);
    context.fill();
    context.globalAlpha = 1;
    context.lineWidth = 1.5 * ratio;
    context.beginPath();
    seen.forEach(([middle], index) => context.lineTo(x(index), y(middle)));
    context.stroke();
  }
}

export function told(value) {
  return value < 10 ? value.toFixed(2) : value < 100 ? value.toFixed(1) : value.toFixed(0);
}
