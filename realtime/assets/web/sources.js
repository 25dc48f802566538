// What the page knows of each source. Times of the line are milliseconds of its capture clock; `at` and `…At` are
// performance.now() of this page. Nothing here touches the document.

export const SILENT_MS = 3000;
const KEPT_EVENTS = 60;
const KEPT_RATES = 60;
const PERSON_MS = 60000; // a row of the timeline stays for so long after its person was last seen
const ORDER = { start: 0, update: 1, end: 2 };

const finite = (value) => (typeof value === "number" && Number.isFinite(value) ? value : null);
const text = (value) => (typeof value === "string" ? value : null);
const ms = (ns) => (finite(ns) === null ? null : ns / 1e6);

export class Source {
  constructor(name, now) {
    this.name = name;
    this.madeAt = now;
    this.session = null;
    this.state = null;
    this.reason = null;
    this.heartbeat = null;
    this.heardAt = null;
    this.pose = null;
    this.poseAt = null;
    this.aspect = 16 / 9;
    this.events = new Map(); // by id, oldest first
    this.people = new Map(); // track -> performance.now() when last seen
    this.rates = [];
    this.capture = null; // newest capture time, and when it was heard
    this.captureAt = 0;
  }

  silentFor(now) {
    return now - (this.heardAt ?? this.madeAt);
  }

  isSilent(now) {
    return this.silentFor(now) > SILENT_MS;
  }

  // The capture clock now; it stands still while the source is silent.
  clock(now) {
    if (this.capture === null) return null;
    const until = this.isSilent(now) && this.heardAt !== null ? Math.max(this.heardAt, this.captureAt) : now;
    return this.capture + Math.max(0, until - this.captureAt);
  }

  open() {
    return [...this.events.values()].filter((event) => event.open);
  }

  begin(session) {
    if (session === null || session === this.session) return;
    const again = this.session !== null;
    this.session = session;
    if (!again) return;
    for (const event of this.events.values()) this.close(event, "the line started again");
    this.people.clear();
    this.rates = [];
    this.capture = this.pose = this.state = this.reason = null;
  }

  close(event, reason) {
    if (!event.open) return;
    event.open = false;
    event.endReason = reason;
    event.offset = event.heard;
  }

  captured(time, now, exact) {
    if (time === null) return;
    const here = this.clock(now);
    if (exact || here === null || time > here) {
      this.capture = time;
      this.captureAt = now;
    }
  }

  takePose(message, now) {
    this.begin(text(message.session));
    this.captured(ms(message.time?.mono_ns), now, true);
    this.pose = message;
    this.poseAt = now;
    for (const person of message.persons ?? []) this.people.set(person.track, now);
  }

  takeStatus(message, now) {
    this.begin(text(message.session));
    this.captured(ms(message.time?.mono_ns), now, false);
    if (message.state === "window_reset") return;
    this.state = text(message.state);
    this.reason = text(message.reason);
  }

  // fresh: it came just now; one sent again at the beginning of a stream may be old.
  takeHeartbeat(message, now, fresh = true) {
    this.begin(text(message.session));
    this.heartbeat = message;
    if (fresh) {
      this.heardAt = now;
      this.rates.push(finite(message.fps) ?? 0);
      if (this.rates.length > KEPT_RATES) this.rates.shift();
    }
    const state = text(message.state);
    if (state !== null && state !== "window_reset" && state !== this.state) {
      this.state = state;
      this.reason = null;
    }
    const open = new Set((message.open_events ?? []).map((one) => one.id));
    if (fresh) for (const event of this.open()) if (!open.has(event.id)) this.close(event, "its end was missed");
  }

  takeAction(message, now, fresh = true, known = undefined) {
    this.begin(text(message.session));
    const time = message.time ?? {};
    const decided = ms(time.decided_mono_ns);
    if (fresh) this.captured(decided, now, false);
    const { width, height } = message.source ?? {};
    if (width > 0 && height > 0) this.aspect = width / height;
    const before = this.events.get(message.id);
    if (before && (!before.open || ORDER[message.phase] < ORDER[before.phase])) return null;
    const event = before ?? { id: message.id, known: message.phase === "start" ? decided : null };
    if (known !== undefined) event.known = known;
    Object.assign(event, {
      phase: message.phase,
      session: text(message.session),
      track: message.track?.id,
      partner: finite(message.track?.partner),
      action: text(message.action?.id) ?? "?",
      name: text(message.action?.name) ?? text(message.action?.id) ?? "?",
      onset: ms(time.onset_mono_ns),
      offset: ms(time.offset_mono_ns),
      heard: decided,
      onsetUtc: text(time.onset),
      score: finite(message.score?.value),
      peak: finite(message.score?.peak),
      endReason: text(message.end_reason),
      open: message.phase !== "end",
    });
    this.events.set(event.id, event);
    while (this.events.size > KEPT_EVENTS) this.events.delete(this.events.keys().next().value);
    if (event.open && fresh) this.people.set(event.track, now);
    return before ? null : event;
  }

  takeSnapshot(told, now) {
    this.begin(text(told.session));
    this.state = text(told.state);
    this.reason = text(told.reason);
    if (told.heartbeat) this.takeHeartbeat(told.heartbeat, now, false);
    const age = finite(told.heartbeat_age_s);
    if (age !== null) this.heardAt = Math.max(this.heardAt ?? -Infinity, now - age * 1000);
    this.captured(ms(told.capture_mono_ns), now, false);
    for (const entry of told.events ?? []) {
      this.takeAction(entry.event ?? {}, now, false, ms(entry.known_mono_ns));
      const event = this.events.get(entry.event?.id);
      if (event && !entry.open) this.close(event, "its end was missed");
    }
  }

  // Tracks that have a row: seen, or with an event, in the last minute.
  rows(now) {
    const clock = this.clock(now);
    const tracks = new Set();
    for (const [track, seen] of this.people) if (now - seen < PERSON_MS) tracks.add(track); else this.people.delete(track);
    for (const event of this.events.values()) {
      if (event.session !== this.session || clock === null) continue;
      if (event.open || clock - (event.offset ?? event.onset) < PERSON_MS) {
        tracks.add(event.track);
        if (event.partner !== null) tracks.add(event.partner);
      }
    }
    return [...tracks].sort((a, b) => a - b);
  }
}
