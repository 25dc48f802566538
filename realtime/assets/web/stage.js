// Stick figures on a canvas: where a pose has places in the picture these are drawn, else its joints in space are seen
// through a sensor's lens, over a floor. Only what is fresh is drawn: figures fade after a second and are gone after three.

import { SILENT_MS } from "./sources.js";
import { STATES, stateOf } from "./panels.js";

const FADE_MS = 1000;
const FOCAL = 1.13; // of the canvas's height: about the field of view of a Kinect
const DISTANCE = 2.8; // metres, for skeletons given about their own hips
const UNSURE = 0.3;
const FACE = /^(nose|head|left_(eye|ear|mouth)|right_(eye|ear|mouth))/;
const FINE = /_(tip|thumb|pinky|index)$/;
const HEAD_M = 0.115;

// How a layout is drawn: its bones but those of the face, and what the tree leaves open.
function planOf({ joints, bones }) {
  const at = Object.fromEntries(joints.map((name, i) => [name, i]));
  const has = (...names) => names.every((name) => name in at);
  const lines = bones.filter(([a, b]) => !FACE.test(joints[a]) && !FACE.test(joints[b]));
  if (!has("shoulder_center") && !has("neck") && has("left_shoulder", "right_shoulder")) lines.push([at.left_shoulder, at.right_shoulder]);
  if (!has("hip_center") && !has("spine") && has("left_hip", "right_hip")) lines.push([at.left_hip, at.right_hip]);
  const pick = (...names) => names.filter((name) => name in at).map((name) => at[name]);
  return {
    lines: lines.map(([a, b]) => ({ a, b, fine: FINE.test(joints[b]), left: joints[b].startsWith("left_") })),
    head: has("head") ? [at.head] : pick("nose", "left_ear", "right_ear"),
    neck: has("neck") ? [at.neck] : has("shoulder_center") ? [at.shoulder_center] : pick("left_shoulder", "right_shoulder"),
    trunk: pick("left_shoulder", "right_shoulder", "right_hip", "left_hip"),
    girdle: pick("left_shoulder", "right_shoulder"),
    dots: joints.map((name, i) => i).filter((i) => !FACE.test(joints[i]) && !FINE.test(joints[i])),
    count: joints.length,
  };
}

// Between two colours given as #rrggbb.
function mixed(one, other, share) {
  const parts = (colour) => [1, 3, 5].map((i) => parseInt(colour.slice(i, i + 2), 16));
  const [a, b] = [parts(one), parts(other)];
  return `rgb(${a.map((value, i) => Math.round(value + (b[i] - value) * share)).join(" ")})`;
}

export class Stage {
  constructor(canvas, notice) {
    this.canvas = canvas;
    this.notice = notice;
    this.context = canvas.getContext("2d");
    this.plans = new Map();
    this.colours = null;
    this.view = null; // zoom and middle, moved gently
    this.floor = null;
    this.labels = new Map(); // track -> where its label is
    this.width = this.height = 0;
    new ResizeObserver(() => this.resize()).observe(canvas);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => (this.colours = null));
  }

  learn(layouts) {
    for (const [name, layout] of Object.entries(layouts)) this.plans.set(name, planOf(layout));
  }

  resize() {
    const ratio = Math.min(3, devicePixelRatio || 1);
    const { clientWidth, clientHeight } = this.canvas;
    if (!clientWidth || !clientHeight) return;
    this.canvas.width = Math.round(clientWidth * ratio);
    this.canvas.height = Math.round(clientHeight * ratio);
    this.width = clientWidth;
    this.height = clientHeight;
    this.ratio = ratio;
  }

  draw(source, now, connection) {
    const age = source?.pose ? now - source.poseAt : Infinity;
    const alpha = Math.max(0, Math.min(1, (SILENT_MS - age) / (SILENT_MS - FADE_MS)));
    const persons = alpha > 0 ? source.pose.persons : [];
    this.say(source, now, connection, age, persons.length);
    const { context: c, width, height } = this;
    if (!width) return;
    this.colours ??= this.readColours();
    c.setTransform(this.ratio, 0, 0, this.ratio, 0, 0);
    c.clearRect(0, 0, width, height);
    const plan = this.plans.get(source?.pose?.layout);
    const flat = persons.some((person) => person.image_joints);
    const figures = plan ? persons.map((person, i) => (flat ? this.flat(person, source.aspect) : this.spatial(person, i, persons.length))).filter((f) => f && f.places.length === plan.count) : [];
    this.look(figures, flat, source?.aspect);
    if (flat) this.frame(source.aspect);
    else this.ground(figures, alpha);
    figures.sort((a, b) => b.depth - a.depth);
    c.globalAlpha = alpha;
    for (const figure of figures) this.figure(figure, plan);
    for (const figure of figures) this.label(figure, source);
    for (const track of this.labels.keys()) if (!persons.some((person) => person.track === track)) this.labels.delete(track);
    c.globalAlpha = 1;
    this.canvas.dataset.figures = figures.length;
    this.canvas.dataset.view = flat ? "picture" : "space";
  }

  say(source, now, connection, age, count) {
    let words = "";
    const state = stateOf(source, now);
    if (connection === "lost") words = "Connection lost. Trying again.";
    else if (!source) words = "Waiting for a line to tell something.";
    else if (state === "silent") words = `Silent for ${Math.floor(source.silentFor(now) / 1000)} s.`;
    else if (state !== "online" && state !== "degraded" && state !== "unknown" && count === 0) words = `${STATES[state]}${source.reason ? `: ${source.reason}` : ""}`;
    else if (!source.pose) words = source.heartbeat ? "This line tells no skeletons (--publish-poses)." : "Waiting for the first frame.";
    else if (age >= SILENT_MS) words = `No frame for ${Math.floor(age / 1000)} s.`;
    else if (count === 0) words = "Nobody in view.";
    if (this.notice.textContent !== words) this.notice.textContent = words;
    this.canvas.dataset.stale = String(age >= SILENT_MS);
  }

  readColours() {
    const style = getComputedStyle(document.documentElement);
    const get = (name) => style.getPropertyValue(name).trim();
    return { tracks: Array.from({ length: 8 }, (_, i) => get(`--track-${i}`)), grid: get("--grid"), stage: get("--stage"), ink: get("--ink"), muted: get("--muted"), on: get("--on-track"), shadow: get("--shadow") };
  }

  // Joints in units of the picture, drawn in the largest frame of its shape.
  flat(person, aspect) {
    const rows = person.image_joints ?? [];
    const places = rows.map(([x, y], i) => (x === null || y === null || person.confidence?.[i] === 0 ? null : { x, y: y / aspect }));
    const seen = places.filter(Boolean);
    if (!seen.length) return null;
    const ys = seen.map((p) => p.y);
    const tall = Math.max(0.05, Math.max(...ys) - Math.min(...ys));
    return { person, places, depth: -Math.max(...ys), limb: 0.028 * tall, head: 0.065 * tall };
  }

  // Metres before a sensor. +x is the sensor's left, which is the left of the picture.
  spatial(person, index, count) {
    const seen = person.joints.map((joint, i) => (joint.includes(null) || person.confidence?.[i] === 0 ? null : joint));
    const depths = seen.filter(Boolean).map((joint) => joint[2]).sort((a, b) => a - b);
    if (!depths.length) return null;
    const depth = depths[depths.length >> 1];
    const own = depth < 0.5; // about its own hips, not before a sensor
    const aside = own ? (index - (count - 1) / 2) * 1.1 : 0;
    const away = own ? DISTANCE : 0;
    const places = seen.map((joint) => {
      const z = joint ? joint[2] + away : 0;
      return z > 0.2 ? { x: (-FOCAL * (joint[0] + aside)) / z, y: (-FOCAL * joint[1]) / z } : null;
    });
    const unit = FOCAL / (depth + away);
    const heights = seen.filter(Boolean).map((joint) => joint[1]);
    const mean = (axis) => seen.filter(Boolean).reduce((sum, joint) => sum + joint[axis], 0) / depths.length;
    return { person, places, depth: depth + away, limb: 0.052 * unit, head: HEAD_M * unit, feet: Math.min(...heights), x: mean(0) + aside, z: mean(2) + away };
  }

  // Moves zoom and middle gently so that everybody is in view.
  look(figures, flat, aspect) {
    const { width, height } = this;
    let wanted = this.view && !figures.length ? this.view : { zoom: height, x: 0, y: 0 };
    if (flat) {
      const zoom = Math.min(width, height * aspect) * 0.94;
      this.view = { zoom, x: 0.5, y: 0.5 / aspect };
      return;
    }
    const points = figures.flatMap((figure) => figure.places.filter(Boolean));
    if (points.length) {
      const xs = points.map((p) => p.x);
      const ys = points.map((p) => p.y);
      const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys) - 0.12, Math.max(...ys) + 0.05];
      const zoom = Math.min((0.86 * width) / (right - left + 0.1), (0.88 * height) / (bottom - top), 1.5 * height);
      wanted = { zoom, x: (left + right) / 2, y: (top + bottom) / 2 };
    }
    const near = this.view && Number.isFinite(this.view.zoom) ? this.view : wanted;
    const pace = matchMedia("(prefers-reduced-motion: reduce)").matches ? 0.02 : 0.06;
    const mix = (a, b) => a + (b - a) * pace;
    this.view = { zoom: mix(near.zoom, wanted.zoom), x: mix(near.x, wanted.x), y: mix(near.y, wanted.y) };
  }

  px({ x, y }) {
    return [this.width / 2 + (x - this.view.x) * this.view.zoom, this.height / 2 + (y - this.view.y) * this.view.zoom];
  }

  frame(aspect) {
    const c = this.context;
    const [left, top] = this.px({ x: 0, y: 0 });
    const [right, bottom] = this.px({ x: 1, y: 1 / aspect });
    c.strokeStyle = this.colours.grid;
    c.lineWidth = 1.5;
    c.beginPath();
    c.roundRect(left, top, right - left, bottom - top, 10);
    c.stroke();
  }

  ground(figures, alpha) {
    const feet = figures.map((figure) => figure.feet);
    if (feet.length) {
      const lowest = Math.min(...feet);
      this.floor = this.floor === null ? lowest : this.floor + (lowest - this.floor) * (lowest < this.floor ? 0.2 : 0.01);
    }
    if (this.floor === null) return;
    const c = this.context;
    const spot = (x, z) => this.px({ x: (-FOCAL * x) / z, y: (-FOCAL * this.floor) / z });
    const line = (x1, z1, x2, z2, strength) => {
      c.globalAlpha = strength;
      c.beginPath();
      c.moveTo(...spot(x1, z1));
      c.lineTo(...spot(x2, z2));
      c.stroke();
    };
    c.strokeStyle = this.colours.grid;
    c.lineWidth = 1;
    for (let z = 1.5; z <= 7; z += 0.5) line(-5, z, 5, z, Math.max(0.06, 1 - (z - 1.5) / 5.5));
    for (let x = -5; x <= 5; x += 0.5) for (let z = 1.5; z < 7; z += 0.5) line(x, z, x, z + 0.5, Math.max(0.06, 1 - (z - 1.5) / 5.5));
    for (const { x, z } of figures) {
      const [px, py] = spot(x, z);
      const wide = 0.34 * (FOCAL / z) * this.view.zoom;
      c.globalAlpha = alpha;
      c.fillStyle = this.colours.shadow;
      c.beginPath();
      c.ellipse(px, py, wide, wide * 0.24, 0, 0, 2 * Math.PI);
      c.fill();
    }
    c.globalAlpha = 1;
  }

  colour(track) {
    return this.colours.tracks[((track % 8) + 8) % 8] || this.colours.ink;
  }

  figure(figure, plan) {
    const c = this.context;
    const { person } = figure;
    const at = figure.places.map((place) => place && this.px(place));
    const sure = (i) => (person.confidence?.[i] ?? 1) >= UNSURE;
    const limb = Math.max(2.5, figure.limb * this.view.zoom);
    const colour = this.colour(person.track);
    const alpha = c.globalAlpha;
    c.lineCap = c.lineJoin = "round";
    const stroke = (from, to, wide, paint, strength, dashed = false) => {
      c.globalAlpha = alpha * strength;
      c.strokeStyle = paint;
      c.lineWidth = wide;
      c.setLineDash(dashed ? [3, 6] : []);
      c.beginPath();
      c.moveTo(...from);
      c.lineTo(...to);
      c.stroke();
    };
    const lines = plan.lines.filter(({ a, b }) => at[a] && at[b]);
    for (const { a, b, fine } of lines) stroke(at[a], at[b], (fine ? 0.5 : 1) * limb + 4, this.colours.stage, 1);
    const trunk = plan.trunk.map((i) => at[i]);
    if (plan.trunk.length === 4 && trunk.every(Boolean)) {
      c.globalAlpha = alpha * 0.2;
      c.fillStyle = colour;
      c.beginPath();
      trunk.forEach((spot, i) => (i ? c.lineTo(...spot) : c.moveTo(...spot)));
      c.fill();
    }
    const far = mixed(colour, this.colours.stage, 0.3); // the left side, so that front and back can be told
    for (const { a, b, fine, left } of [...lines].sort((one, other) => other.left - one.left)) {
      if (sure(a) && sure(b)) stroke(at[a], at[b], (fine ? 0.5 : 1) * limb, left ? far : colour, 1);
      else stroke(at[a], at[b], 0.35 * limb, this.colours.muted, 0.7, true);
    }
    c.setLineDash([]);
    this.head(figure, plan, at, limb, colour, alpha);
    c.fillStyle = this.colours.stage;
    c.globalAlpha = alpha * 0.85;
    for (const i of plan.dots) {
      if (!at[i] || !sure(i)) continue;
      c.beginPath();
      c.arc(...at[i], limb * 0.22, 0, 2 * Math.PI);
      c.fill();
    }
    c.globalAlpha = alpha;
  }

  head(figure, plan, at, limb, colour, alpha) {
    const c = this.context;
    const middle = (indices) => {
      const spots = indices.map((i) => at[i]).filter(Boolean);
      return spots.length ? [0, 1].map((axis) => spots.reduce((sum, spot) => sum + spot[axis], 0) / spots.length) : null;
    };
    const head = middle(plan.head);
    if (!head) return;
    const neck = middle(plan.neck);
    const radius = Math.max(4, figure.head * this.view.zoom);
    figure.top = [head[0], head[1] - radius];
    c.globalAlpha = alpha;
    const disc = (size, paint) => {
      c.fillStyle = paint;
      c.beginPath();
      c.arc(...head, size, 0, 2 * Math.PI);
      c.fill();
    };
    disc(radius + 2, this.colours.stage);
    if (neck) {
      c.strokeStyle = colour;
      c.lineWidth = limb * 0.8;
      c.beginPath();
      c.moveTo(...neck);
      c.lineTo(...head);
      c.stroke();
    }
    disc(radius, colour);
  }

  // Labels follow a little behind, so that they can be read.
  gently(track, wanted) {
    const before = this.labels.get(track) ?? wanted;
    const near = Math.hypot(before[0] - wanted[0], before[1] - wanted[1]) < 160 ? before : wanted;
    const place = near.map((value, i) => value + (wanted[i] - value) * 0.15);
    this.labels.set(track, place);
    return place;
  }

  label(figure, source) {
    const c = this.context;
    const spots = figure.places.filter(Boolean).map((place) => this.px(place));
    const { track } = figure.person;
    const doing = source.open().filter((event) => event.track === track || event.partner === track);
    const words = doing.map((event) => event.name).join(" + ").slice(0, 48);
    const size = this.width < 520 ? 13 : 15;
    c.font = `600 ${size}px system-ui, sans-serif`;
    const shown = words ? `${track}  ${words}` : String(track);
    const wide = c.measureText(shown).width + size * 1.5;
    const tall = size * 1.8;
    const [over, crown] = figure.top ?? spots.reduce((best, spot) => (spot[1] < best[1] ? spot : best));
    const reach = spots.filter((spot) => Math.abs(spot[0] - over) < wide / 2 + 8).map((spot) => spot[1] - 8);
    const [middle, top] = this.gently(track, [over, Math.min(crown, ...reach)]); // over the head, and over a raised hand
    const x = Math.min(this.width - wide - 6, Math.max(6, middle - wide / 2));
    const y = Math.min(this.height - tall - 6, Math.max(6, top - tall - 9));
    c.fillStyle = this.colour(track);
    c.beginPath();
    c.roundRect(x, y, wide, tall, tall / 2);
    c.fill();
    c.fillStyle = this.colours.on;
    c.textBaseline = "middle";
    c.fillText(shown, x + size * 0.75, y + tall / 2 + 1);
  }
}
