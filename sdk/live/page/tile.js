// One camera: its picture on one canvas, its persons on another over it. The newest frame is shown; one that comes
// while another is decoded waits, and a newer one takes its place.

import { confidence, drawPersons, Trails } from "./draw.js";

const NEAR = 16; // pixels of the screen, from a joint to the pointer
const MOST_DOTS = 2; // canvas pixels a pixel of the page: more cost a phone more than they show

export class Tile {
  constructor(number, name, page) {
    this.page = page;
    this.number = number;
    this.name = name;
    this.frame = this.bitmap = this.next = null;
    this.decoding = false;
    this.trails = new Trails();
    this.build();
    new ResizeObserver(() => this.resized()).observe(this.screen);
  }

  build() {
    const made = (parent, tag, className) => {
      const element = parent.appendChild(document.createElement(tag));
      element.className = className;
      return element;
    };
    this.element = document.createElement("figure");
    this.element.className = "tile";
    this.screen = made(this.element, "div", "screen");
    this.screen.tabIndex = 0;
    this.screen.setAttribute("role", "group");
    this.screen.setAttribute("aria-label", `Camera ${this.name}`);
    this.screen.setAttribute("aria-describedby", "keys");
    this.picture = made(this.screen, "canvas", "picture");
    this.overlay = made(this.screen, "canvas", "overlay");
    this.overlay.setAttribute("role", "img");
    this.overlay.setAttribute("aria-label", "no frame yet");
    this.picture.setAttribute("aria-hidden", "true");
    this.tip = made(this.screen, "div", "tip");
    this.tip.hidden = true;
    this.wait = made(this.element, "p", "wait");
    this.wait.textContent = "Waiting for the first frame";
    const caption = made(this.element, "figcaption", "");
    made(caption, "span", "").textContent = this.name;
    this.rate = made(caption, "span", "rate");
    const full = made(caption, "button", "full");
    full.type = "button";
    full.setAttribute("aria-label", `Camera ${this.name} on the whole screen`);
    full.textContent = "⤢";
    full.hidden = !document.fullscreenEnabled;
    full.addEventListener("click", () => (document.fullscreenElement ? document.exitFullscreen() : this.element.requestFullscreen()));
    this.screen.addEventListener("pointermove", (event) => this.point(event));
    this.screen.addEventListener("pointerleave", () => (this.tip.hidden = true));
    this.screen.addEventListener("click", (event) => this.pick(event));
    this.screen.addEventListener("keydown", (event) => this.page.key(event, this));
  }

  // A frame has come. `arrived` is called once it is drawn or passed over: the server sends no more than two ahead.
  async receive(frame, arrived) {
    if (this.decoding) {
      if (this.next) this.next.arrived();
      this.next = { frame, arrived };
      return;
    }
    this.decoding = true;
    try {
      for (let item = { frame, arrived }; item; item = this.next) {
        this.next = null;
        await this.show(item.frame);
        item.arrived();
      }
    } finally {
      this.decoding = false;
    }
  }

  async show(frame) {
    const bitmap = await createImageBitmap(new Blob([frame.jpeg], { type: "image/jpeg" }));
    if (this.bitmap) this.bitmap.close();
    this.bitmap = bitmap;
    if (!this.frame || this.frame.width !== frame.width || this.frame.height !== frame.height) {
      this.screen.style.setProperty("--wide", frame.width);
      this.screen.style.setProperty("--high", frame.height);
      this.trails = new Trails();
    }
    if (!this.frame || this.frame.frame !== frame.frame) this.trails.add(frame, this.page.look, this.page.view.threshold);
    this.frame = frame;
    if (this.wait.textContent) this.wait.textContent = "";
    this.drawPicture();
    this.draw();
    this.screen.dataset.frame = frame.frame;
    this.page.seen(this);
  }

  resized() {
    const dots = Math.min(MOST_DOTS, window.devicePixelRatio || 1);
    const width = Math.max(1, Math.round(this.screen.clientWidth * dots));
    const height = Math.max(1, Math.round(this.screen.clientHeight * dots));
    for (const canvas of [this.picture, this.overlay]) {
      if (canvas.width !== width || canvas.height !== height) [canvas.width, canvas.height] = [width, height];
    }
    this.drawPicture();
    this.draw();
  }

  drawPicture() {
    if (this.bitmap) this.picture.getContext("2d").drawImage(this.bitmap, 0, 0, this.picture.width, this.picture.height);
  }

  draw() {
    if (!this.frame) return;
    drawPersons(this.overlay.getContext("2d"), this.frame, this.page.look, this.page.view, this.page.pickedOf(this), this.trails);
  }

  // The joint nearest to a place on the screen, if one is near, and whose it is.
  nearest(event) {
    if (!this.frame) return null;
    const bounds = this.screen.getBoundingClientRect();
    const scale = bounds.width / this.frame.width;
    const [x, y] = [event.clientX - bounds.left, event.clientY - bounds.top];
    let found = null;
    for (const person of this.frame.people) {
      this.page.look.joints.forEach((name, joint) => {
        const [at, down, score] = person.joints.subarray(3 * joint, 3 * joint + 3);
        if (!confidence(score, this.page.view.threshold, this.page.look.sure)) return;
        const [left, top] = [(at + 0.5) * scale, (down + 0.5) * scale];
        const away = Math.hypot(left - x, top - y);
        if (away <= (found?.away ?? NEAR)) found = { away, person, name, score, left, top };
      });
    }
    return found;
  }

  point(event) {
    const found = this.nearest(event);
    this.tip.hidden = !found;
    if (!found) return;
    const name = document.createElement("b");
    name.textContent = found.name.replaceAll("_", " ");
    this.tip.replaceChildren(name, ` ${found.score.toPrecision(2)}, person ${found.person.id}`);
    this.tip.style.left = `${found.left}px`;
    this.tip.style.top = `${Math.max(30, found.top)}px`;
  }

  pick(event) {
    const person = this.nearest(event)?.person ?? this.within(event);
    this.page.pick(this, person && this.page.pickedOf(this) !== person.id ? person.id : null);
    if (event.pointerType === "touch") this.point(event);
  }

  // The person of the smallest box around a place.
  within(event) {
    if (!this.frame) return null;
    const bounds = this.screen.getBoundingClientRect();
    const scale = bounds.width / this.frame.width;
    const [x, y] = [(event.clientX - bounds.left) / scale, (event.clientY - bounds.top) / scale];
    const size = ({ box }) => (box[2] - box[0]) * (box[3] - box[1]);
    const inside = this.frame.people.filter(({ box }) => box[0] <= x && x <= box[2] && box[1] <= y && y <= box[3]);
    return inside.sort((a, b) => size(a) - size(b))[0] ?? null;
  }

  tell(rate) {
    this.rate.textContent = `${rate.fps.toFixed(0)} fps`;
    const silent = rate.age_s !== null && rate.age_s > 2 && this.page.running;
    this.element.classList.toggle("still", silent);
    this.wait.textContent = silent ? `No frame for ${rate.age_s.toFixed(0)} s` : this.frame ? "" : "Waiting for the first frame";
    const persons = rate.persons === 1 ? "1 person" : `${rate.persons} persons`;
    if (this.frame) this.overlay.setAttribute("aria-label", `${persons} in the picture`);
  }
}
