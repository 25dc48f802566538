// The last minute of each person: a row each, a bar for each action.

import { element, trackColour } from "./panels.js";

const SPAN_MS = 60000;

export class Timeline {
  constructor(rows, axis) {
    this.rows = rows;
    this.axis = axis;
    this.lanes = new Map(); // track -> row
    this.bars = new Map(); // event id and track -> bar
    this.source = null;
    this.laneWidth = 0;
  }

  // Which rows and bars there are; `move` puts them in their places.
  show(source, now) {
    if (source !== this.source) this.forget();
    this.source = source;
    const tracks = source.rows(now);
    for (const [track, row] of this.lanes) {
      if (tracks.includes(track)) continue;
      row.remove();
      this.lanes.delete(track);
    }
    for (const track of tracks) if (!this.lanes.has(track)) this.addRow(track, tracks);
    this.axis.hidden = tracks.length === 0;
    this.rows.dataset.empty = tracks.length === 0;
    const wanted = new Set();
    for (const event of source.events.values()) {
      if (event.session !== source.session) continue;
      for (const track of event.partner === null ? [event.track] : [event.track, event.partner]) {
        if (!this.lanes.has(track)) continue;
        const key = `${event.id} ${track}`;
        wanted.add(key);
        if (!this.bars.has(key)) this.addBar(key, event, track);
        this.bars.get(key).bar.dataset.open = event.open;
      }
    }
    for (const [key, { bar }] of this.bars) {
      if (wanted.has(key)) continue;
      bar.remove();
      this.bars.delete(key);
    }
    this.laneWidth = this.rows.querySelector(".lane")?.clientWidth ?? 0;
    this.move(source, now);
  }

  move(source, now) {
    const clock = source.clock(now);
    if (clock === null || source !== this.source) return;
    for (const { bar, event } of this.bars.values()) {
      const begin = Math.max(0, 1 - (clock - event.onset) / SPAN_MS);
      const end = event.open ? 1 : Math.min(1, 1 - (clock - (event.offset ?? clock)) / SPAN_MS);
      bar.hidden = end <= 0;
      bar.style.left = `${(100 * begin).toFixed(2)}%`;
      bar.style.width = `${(100 * Math.max(0.4 / 100, end - begin)).toFixed(2)}%`;
      bar.toggleAttribute("data-narrow", (end - begin) * this.laneWidth < 42);
    }
  }

  forget() {
    this.rows.replaceChildren();
    this.lanes.clear();
    this.bars.clear();
  }

  addRow(track, tracks) {
    const row = element("div", "row");
    row.dataset.track = track;
    row.style.setProperty("--colour", trackColour(track));
    const label = element("span", "person", String(track));
    label.title = `Person ${track}`;
    const lane = element("ol", "lane");
    lane.setAttribute("aria-label", `What person ${track} did`);
    row.append(label, lane);
    const after = tracks.filter((other) => other > track).map((other) => this.lanes.get(other)).find(Boolean);
    this.rows.insertBefore(row, after ?? null);
    this.lanes.set(track, row);
    for (const [key, { bar }] of this.bars) if (key.endsWith(` ${track}`)) bar.remove();
  }

  addBar(key, event, track) {
    const row = this.lanes.get(track);
    const bar = element("li", event.partner === null ? "bar" : "bar pair");
    bar.dataset.action = event.action;
    bar.title = event.partner === null ? event.name : `${event.name} (${event.track} and ${event.partner})`;
    bar.append(element("span", "", event.name));
    if (event.partner !== null) row.dataset.pairs = "true";
    row.querySelector(".lane").append(bar);
    this.bars.set(key, { bar, event });
  }
}
