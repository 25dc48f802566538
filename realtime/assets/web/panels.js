// Health, people, events and tabs. Whatever a message says is written as text, never as markup.

export const trackColour = (track) => `var(--track-${(((Number(track) || 0) % 8) + 8) % 8})`;

export function element(tag, className = "", content = "") {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (content !== "") made.textContent = content;
  return made;
}

function write(node, content) {
  if (node.textContent !== content) node.textContent = content; // so that a screen reader hears changes alone
}

const number = (value, digits = 0) =>
  typeof value === "number" && Number.isFinite(value) ? value.toLocaleString("en", { maximumFractionDigits: digits, minimumFractionDigits: digits }) : "–";

export function duration(seconds) {
  if (typeof seconds !== "number" || !Number.isFinite(seconds)) return "–";
  if (seconds < 90) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  return hours < 48 ? `${hours} h ${minutes % 60} min` : `${Math.floor(hours / 24)} d ${hours % 24} h`;
}

export const STATES = {
  online: "Online",
  stalled: "Stalled",
  frozen: "Frozen",
  dark: "Dark",
  degraded: "Degraded",
  reconnecting: "Reconnecting",
  offline: "Offline",
  ended: "Ended",
  silent: "Silent",
  unknown: "Waiting",
};

export function stateOf(source, now) {
  if (!source) return "unknown";
  if (source.state === "ended" || source.state === "offline") return source.state;
  if (source.isSilent(now)) return "silent";
  return STATES[source.state] ? source.state : "online";
}

export class Health {
  constructor() {
    const names = ["state", "state-name", "state-reason", "fps", "age", "persons", "drops", "reconnects", "memory", "uptime"];
    this.nodes = Object.fromEntries(names.map((name) => [name, document.getElementById(name)]));
    this.spark = document.querySelector("#spark polyline");
  }

  show(source, now) {
    const { nodes } = this;
    const state = stateOf(source, now);
    nodes.state.dataset.state = state;
    write(nodes["state-name"], source ? STATES[state] : "Waiting for a line");
    const beat = source?.heartbeat;
    let reason = source?.reason ?? "";
    if (state === "silent") reason = `nothing heard for ${duration(Math.floor(source.silentFor(now) / 1000))}`;
    write(nodes["state-reason"], reason);
    nodes["state-reason"].title = reason;
    const live = beat && state !== "silent" && state !== "ended" && state !== "offline"; // what tells "now" only while it is
    write(nodes.fps, live ? number(beat.fps, 1) : "–");
    write(nodes.age, live && beat.frame_age_ms ? `${number(beat.frame_age_ms.p95)} ms` : "–");
    write(nodes.persons, live ? number(beat.persons) : "–");
    write(nodes.drops, number(beat?.drops));
    write(nodes.reconnects, number(beat?.reconnects));
    write(nodes.memory, live && typeof beat.memory_mb === "number" ? `${number(beat.memory_mb)} MB` : "–");
    write(nodes.uptime, live ? duration(beat.uptime_s) : "–");
    const rates = (source?.rates.length ?? 0) > 2 ? source.rates : [];
    const top = Math.max(1, ...rates) * 1.1;
    this.spark.setAttribute("points", rates.map((rate, i) => `${((60 * i) / (Math.max(20, rates.length) - 1)).toFixed(1)},${(19 - (18 * rate) / top).toFixed(1)}`).join(" "));
  }
}

export class People {
  constructor(list) {
    this.list = list;
  }

  show(source, now) {
    const inView = source.isSilent(now) || !source.pose || now - source.poseAt > 3000 ? [] : source.pose.persons;
    const lines = inView.map(({ track }) => {
      const doing = source.open().filter((event) => event.track === track || event.partner === track).map((event) => event.name);
      return `Person ${track}${doing.length ? `: ${doing.join(", ")}` : ""}`;
    });
    while (this.list.children.length > lines.length) this.list.lastChild.remove();
    lines.forEach((line, i) => write(this.list.children[i] ?? this.list.appendChild(element("li")), line));
  }
}

export class Events {
  constructor(list, empty) {
    this.list = list;
    this.empty = empty;
    this.rows = new Map(); // event id -> its parts
  }

  clear() {
    this.list.replaceChildren();
    this.rows.clear();
  }

  show(source, now) {
    const clock = source.clock(now);
    for (const event of source.events.values()) {
      const row = this.rows.get(event.id) ?? this.add(event);
      row.item.dataset.open = event.open;
      const until = event.open ? clock : event.offset;
      const seconds = until === null || event.onset === null ? null : Math.max(0, until - event.onset) / 1000;
      const delay = event.known === null || event.onset === null ? null : (event.known - event.onset) / 1000;
      write(row.lasted, seconds === null ? "" : `${number(seconds, 1)} s`);
      write(row.score, `${event.open ? "score" : "peak"} ${number(event.open ? event.score : event.peak, 2)}`);
      write(row.delay, delay === null ? "" : `known after ${number(delay, 1)} s`);
      write(row.end, event.open || !event.endReason || event.endReason === "score" ? "" : event.endReason.replaceAll("_", " "));
    }
    for (const [id, row] of this.rows) {
      if (source.events.has(id)) continue;
      row.item.remove();
      this.rows.delete(id);
    }
    this.empty.hidden = this.rows.size > 0;
  }

  add(event) {
    const item = element("li", "event");
    item.dataset.action = event.action;
    item.style.setProperty("--colour", trackColour(event.track));
    const who = event.partner === null ? `${event.track}` : `${event.track} + ${event.partner}`;
    const person = element("span", "person", who);
    person.title = "Person";
    const when = element("time", "", clockTime(event.onsetUtc));
    if (event.onsetUtc) when.dateTime = event.onsetUtc;
    const row = { item, lasted: element("span", "lasted"), score: element("span"), delay: element("span"), end: element("span", "reason") };
    const detail = element("p", "detail");
    detail.append(row.score, row.delay, row.end);
    item.append(person, element("strong", "name", event.name), row.lasted, detail, when);
    this.list.prepend(item);
    this.rows.set(event.id, row);
    return row;
  }
}

function clockTime(utc) {
  const date = new Date(utc ?? NaN);
  return Number.isNaN(date.getTime()) ? "" : date.toLocaleTimeString("en-GB");
}

export class Tabs {
  constructor(bar, choose) {
    this.bar = bar;
    this.choose = choose;
    this.buttons = new Map();
    bar.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      const all = [...this.bar.children];
      const here = all.indexOf(document.activeElement);
      if (!step || here < 0) return;
      event.preventDefault();
      const next = all[(here + step + all.length) % all.length];
      next.focus();
      next.click();
    });
  }

  show(sources, shown, now) {
    this.bar.dataset.count = sources.size;
    for (const [name, source] of sources) {
      let button = this.buttons.get(name);
      if (!button) {
        button = element("button", "tab");
        button.type = "button";
        button.setAttribute("role", "tab");
        button.append(element("span", "dot"), element("span", "", name));
        button.addEventListener("click", () => this.choose(name));
        const after = [...this.buttons.keys()].filter((other) => other > name).sort()[0];
        this.bar.insertBefore(button, this.buttons.get(after) ?? null);
        this.buttons.set(name, button);
      }
      button.dataset.state = stateOf(source, now);
      button.title = `${name}: ${STATES[button.dataset.state]}`;
      button.setAttribute("aria-selected", String(name === shown));
      button.tabIndex = name === shown ? 0 : -1;
    }
  }
}

export class Announcer {
  constructor(node) {
    this.node = node;
    this.waiting = [];
  }

  say(event) {
    this.waiting.push(`Person ${event.track}: ${event.name}`);
    if (this.waiting.length > 1) return;
    setTimeout(() => {
      this.node.textContent = this.waiting.slice(-4).join(". ");
      this.waiting = [];
    }, 1000); // what begins together is said together
  }
}
