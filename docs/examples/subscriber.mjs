// Prints every event and gets those that were missed.   npm install zeromq
//   node subscriber.mjs [ADDRESS [COUNT]]               by default tcp://127.0.0.1:5556
import { Request, Subscriber } from "zeromq";

const address = process.argv[2] ?? "tcp://127.0.0.1:5556";
const most = Number(process.argv[3] ?? Infinity);
const replayAddress = address.replace(/:(\d+)$/, (_, port) => `:${Number(port) + 1}`); // ipc: the path and .replay

const events = new Subscriber();
events.connect(address);
events.subscribe("action.", "heartbeat.");

// Asks for action messages `from` to `to` of a session, and yields them; what is gone is said.
async function* missed(session, from, to) {
  const replay = new Request({ receiveTimeout: 2000, linger: 0 });
  replay.connect(replayAddress);
  try {
    while (from <= to) {
      await replay.send(JSON.stringify({ get: "since", family: "action", session, from, to }));
      const [head, ...messages] = await replay.receive();
      const { answer, oldest } = JSON.parse(head);
      if (answer === "gone") {
        const next = oldest !== null && oldest <= to ? oldest : to + 1;
        console.error(`gap: messages ${from} to ${next - 1} are gone`);
        from = next;
      } else if (messages.length === 0) {
        return;
      } else {
        for (const message of messages) {
          const event = JSON.parse(message);
          from = event.seq + 1;
          yield event;
        }
      }
    }
  } finally {
    replay.close();
  }
}

let session, expected;
let seen = 0;

function tell(event) {
  console.log(`${event.time.decided} ${event.phase} ${event.action.id} ${event.score.value} seq ${event.seq}`);
  if (++seen >= most) process.exit(0);
}

for await (const [topic, payload] of events) {
  const message = JSON.parse(payload);
  const beat = topic.toString().startsWith("heartbeat.");
  const reached = beat ? (message.next_seq.action ?? 0) : message.seq;
  if (message.session !== session) [session, expected] = [message.session, reached]; // joined late: from here on
  if (reached > expected) for await (const event of missed(session, expected, reached - 1)) tell(event);
  expected = Math.max(expected, reached);
  if (!beat && message.seq >= expected) {
    expected = message.seq + 1;
    tell(message);
  }
}
