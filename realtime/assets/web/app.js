// Puts the page together: one stream of events in, the panels and the stage out.

import { Source } from "./sources.js";
import { Stage } from "./stage.js";
import { Timeline } from "./timeline.js";
import { Announcer, Events, Health, People, Tabs } from "./panels.js";

const RETRY_MS = 2000;
const sources = new Map();
let shown = null; // name of the source on show
let connection = "connecting";

const byId = (id) => document.getElementById(id);
const stage = new Stage(byId("canvas"), byId("notice"));
const timeline = new Timeline(byId("rows"), byId("axis"));
const health = new Health();
const people = new People(byId("people"));
const events = new Events(byId("list"), byId("no-events"));
const announcer = new Announcer(byId("announcer"));
const tabs = new Tabs(byId("sources"), (name) => {
  shown = name;
  events.clear();
  refresh();
});

function source(name) {
  if (!sources.has(name)) {
    sources.set(name, new Source(name, performance.now()));
    shown ??= name;
  }
  return sources.get(name);
}

const take = {
  snapshot(message, now) {
    for (const [name, told] of Object.entries(message.sources ?? {})) source(name).takeSnapshot(told, now);
  },
  gap() {}, // a snapshot follows, which says how things stand
  live() {},
  pose: (message, now) => source(message.source).takePose(message, now),
  status: (message, now) => source(message.source).takeStatus(message, now),
  heartbeat: (message, now, fresh) => source(message.source).takeHeartbeat(message, now, fresh),
  action(message, now, fresh) {
    const begun = source(message.source.id).takeAction(message, now, fresh);
    if (begun && fresh && message.source.id === shown) announcer.say(begun);
  },
};

function connect() {
  const stream = new EventSource("events");
  let fresh = false; // what comes between a snapshot and "live" was told before
  setConnection(connection === "lost" ? "lost" : "connecting");
  for (const [family, handler] of Object.entries(take)) {
    stream.addEventListener(family, (event) => {
      const now = performance.now();
      if (family === "snapshot" || family === "live") fresh = family === "live";
      let message;
      try {
        message = JSON.parse(event.data);
      } catch {
        return; // one that cannot be read is left out
      }
      handler(message, now, fresh);
      setConnection("open");
      if (family !== "pose") refresh();
    });
  }
  stream.addEventListener("error", () => {
    setConnection("lost");
    if (stream.readyState === EventSource.CLOSED) setTimeout(connect, RETRY_MS); // the browser gave up; we do not
  });
}

function setConnection(now) {
  if (now === connection && document.body.dataset.connection === now) return;
  connection = now;
  document.body.dataset.connection = now;
  byId("connection-text").textContent = { connecting: "Connecting", open: "Connected", lost: "Connection lost, trying again" }[now];
}

function refresh() {
  const now = performance.now();
  const one = sources.get(shown);
  tabs.show(sources, shown, now);
  health.show(one, now);
  if (!one) return;
  people.show(one, now);
  events.show(one, now);
  timeline.show(one, now);
}

function frame() {
  const now = performance.now();
  const one = sources.get(shown);
  stage.draw(one, now, connection);
  if (one) timeline.move(one, now);
  requestAnimationFrame(frame);
}

fetch("layouts.json")
  .then((answer) => answer.json())
  .then((layouts) => stage.learn(layouts))
  .catch(() => setConnection("lost"))
  .finally(() => {
    connect();
    setInterval(refresh, 500);
    requestAnimationFrame(frame);
  });
