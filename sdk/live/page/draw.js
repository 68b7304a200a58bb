// Persons on a canvas that lies over the picture. Frame pixels in; the canvas may be of any size.
// A pixel's number is its middle's, so joint (x, y) lies at ((x + 0.5) scale, (y + 0.5) scale).

const RIM = "#16181c";
const FAINTEST = 0.35; // opacity at the threshold
const DIM = 0.22; // of those who are not picked
const TRAIL = 24; // frames
const TRAILED = ["wrist", "ankle", "Paw"];

export function confidence(score, threshold, sure) {
  if (!(score >= threshold)) return 0;
  return FAINTEST + (1 - FAINTEST) * Math.min(1, Math.max(0, (score - threshold) / Math.max(sure - threshold, 1e-6)));
}

export function drawPersons(context, frame, look, view, picked, trails) {
  const { width, height } = context.canvas;
  const scale = width / frame.width;
  context.clearRect(0, 0, width, height);
  context.lineCap = context.lineJoin = "round";
  const order = [...frame.people].sort((a, b) => a.box[3] - b.box[3]); // nearer persons last
  for (const person of order) {
    const certain = look.joints.map((_, joint) => confidence(person.joints[3 * joint + 2], view.threshold, look.sure));
    context.globalAlpha = 1;
    const strength = picked === null || picked === person.id ? 1 : DIM;
    const unit = Math.max(scale, scale * thickness(frame, person, certain));
    if (view.trails) drawTrail(context, trails.get(person.id), look, scale, unit, strength);
    if (view.boxes) drawBox(context, person.box, scale, strength);
    if (view.skeleton) drawSkeleton(context, person, certain, look, scale, unit, strength);
    if (view.scores) drawScores(context, person, certain, look, scale, strength);
    if (strength === 1) drawLabel(context, frame, person, certain, scale, view.boxes);
  }
  context.globalAlpha = 1;
}

// Half of a limb's width and more follow from this: pixels of the frame, thinner on small persons.
function thickness(frame, person, certain) {
  let [left, top, right, bottom] = [Infinity, Infinity, -Infinity, -Infinity];
  certain.forEach((value, joint) => {
    if (!value) return;
    left = Math.min(left, person.joints[3 * joint]); right = Math.max(right, person.joints[3 * joint]);
    top = Math.min(top, person.joints[3 * joint + 1]); bottom = Math.max(bottom, person.joints[3 * joint + 1]);
  });
  if (left > right) return 1;
  return Math.min(Math.hypot(frame.width, frame.height) / 260, Math.hypot(right - left, bottom - top) / 52);
}

function at(person, joint, scale) {
  return [(person.joints[3 * joint] + 0.5) * scale, (person.joints[3 * joint + 1] + 0.5) * scale];
}

function drawSkeleton(context, person, certain, look, scale, unit, strength) {
  for (const part of look.parts) {
    const thick = Math.max(1, unit * part.thickness);
    for (const [a, b, colour] of part.limbs) {
      const sure = Math.min(certain[a], certain[b]);
      if (!sure) continue;
      context.globalAlpha = sure * strength;
      context.beginPath();
      context.moveTo(...at(person, a, scale));
      context.lineTo(...at(person, b, scale));
      stroke(context, colour, thick);
    }
    const size = part.small ? 0.55 : 1;
    part.joints.forEach((joint, index) => {
      if (!certain[joint]) return;
      context.globalAlpha = certain[joint] * strength;
      const radius = thick * size * (0.55 + 0.65 * certain[joint]) + 0.5;
      disc(context, at(person, joint, scale), radius + Math.max(0.8, 0.28 * thick), RIM);
      disc(context, at(person, joint, scale), radius, part.colours[index]);
    });
  }
}

function stroke(context, colour, thick) {
  context.strokeStyle = RIM;
  context.lineWidth = thick + 2 * Math.max(1, 0.25 * thick);
  context.stroke();
  context.strokeStyle = colour;
  context.lineWidth = thick;
  context.stroke();
}

function disc(context, [x, y], radius, colour) {
  context.beginPath();
  context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fillStyle = colour;
  context.fill();
}

function drawBox(context, box, scale, strength) {
  context.globalAlpha = strength;
  context.beginPath();
  context.roundRect((box[0] + 0.5) * scale, (box[1] + 0.5) * scale, (box[2] - box[0]) * scale, (box[3] - box[1]) * scale, 4);
  stroke(context, "#ebebeb", Math.max(1.5, context.canvas.width / 640));
}

function drawScores(context, person, certain, look, scale, strength) {
  const size = letters(context);
  look.joints.forEach((_, joint) => {
    if (!certain[joint]) return;
    const [x, y] = at(person, joint, scale);
    text(context, person.joints[3 * joint + 2].toPrecision(2), x + 0.7 * size, y, 0.85 * size, strength, "left");
  });
}

function drawLabel(context, frame, person, certain, scale, onBox) {
  let [x, top, seen] = [0, Infinity, 0];
  certain.forEach((value, joint) => {
    if (!value) return;
    const [left, high] = at(person, joint, scale);
    x += left; top = Math.min(top, high); seen++;
  });
  if (!seen) return;
  const size = letters(context);
  const words = `${person.id}`;
  const middle = onBox ? (person.box[0] + 0.5) * scale + size : x / seen;
  const y = Math.max(1.2 * size, (onBox ? (person.box[1] + 0.5) * scale : top) - 1.3 * size);
  context.globalAlpha = 0.85;
  context.font = `650 ${size}px system-ui, sans-serif`;
  const wide = Math.max(1.7 * size, context.measureText(words).width + size);
  context.beginPath();
  context.roundRect(middle - wide / 2, y - 0.85 * size, wide, 1.7 * size, 0.85 * size);
  context.fillStyle = RIM;
  context.fill();
  text(context, words, middle, y, size, 1, "center");
}

function letters(context) {
  return Math.max(10, context.canvas.width / 78);
}

function text(context, words, x, y, size, strength, align) {
  context.globalAlpha = strength;
  context.font = `650 ${size}px system-ui, sans-serif`;
  context.textAlign = align;
  context.textBaseline = "middle";
  context.lineWidth = size / 4;
  context.strokeStyle = RIM;
  context.strokeText(words, x, y);
  context.fillStyle = "#ffffff";
  context.fillText(words, x, y);
}

// Where hands and feet were lately; of a joint set without any, the middle of the person.
export class Trails {
  constructor() {
    this.persons = new Map();
  }

  get(id) {
    return this.persons.get(id);
  }

  add(frame, look, threshold) {
    const kept = new Map();
    const trailed = look.joints.map((name, joint) => (TRAILED.some((word) => name.includes(word)) ? joint : -1)).filter((joint) => joint >= 0);
    for (const person of frame.people) {
      const lines = this.persons.get(person.id) ?? new Map();
      for (const [key, x, y] of places(person, trailed, threshold)) {
        const line = lines.get(key) ?? [];
        line.push([x, y]);
        if (line.length > TRAIL) line.shift();
        lines.set(key, line);
      }
      kept.set(person.id, lines);
    }
    this.persons = kept;
  }
}

function places(person, trailed, threshold) {
  const seen = trailed.filter((joint) => person.joints[3 * joint + 2] >= threshold);
  if (trailed.length) return seen.map((joint) => [joint, person.joints[3 * joint], person.joints[3 * joint + 1]]);
  return [[-1, (person.box[0] + person.box[2]) / 2, (person.box[1] + person.box[3]) / 2]];
}

function drawTrail(context, lines, look, scale, unit, strength) {
  for (const [joint, line] of lines ?? []) {
    context.strokeStyle = colourOf(look, joint);
    for (let i = 1; i < line.length; i++) {
      context.globalAlpha = (0.75 * strength * i) / line.length;
      context.lineWidth = Math.max(1, (1.3 * unit * i) / line.length);
      context.beginPath();
      context.moveTo((line[i - 1][0] + 0.5) * scale, (line[i - 1][1] + 0.5) * scale);
      context.lineTo((line[i][0] + 0.5) * scale, (line[i][1] + 0.5) * scale);
      context.stroke();
    }
  }
}

function colourOf(look, joint) {
  for (const part of look.parts) {
    const index = part.joints.indexOf(joint);
    if (index >= 0) return part.colours[index];
  }
  return "#ebebeb";
}
