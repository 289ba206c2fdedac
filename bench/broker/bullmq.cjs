// The work as BullMQ jobs: `node bullmq.cjs work SLOTS`, or as a producer `node bullmq.cjs WHAT N`, which prints seconds.
const { Queue, Worker } = require("bullmq");
const Redis = require("ioredis");

const url = process.env.BENCH_URL;
const connect = () => new Redis(url, { maxRetriesPerRequest: null });
const notes = new Redis(url.replace("/0", "/1"));
const wait = (ms) => new Promise((done) => setTimeout(done, ms));
const LEASE_MS = 10_000;
const kept = { removeOnComplete: true, removeOnFail: true, attempts: 3 };

const handlers = {
  noop: async () => {},
  nap: () => wait(50),
  stamp: (job) => notes.rpush("bench:latency", Date.now() - job.data.sent),
  hold: async (job) => {
    await notes.rpush("bench:starts", Date.now() / 1000);
    await wait(job.data.seconds * 1000);
  },
};

async function work(slots) {
  new Worker("bench", (job) => handlers[job.name](job), {
    connection: connect(), concurrency: slots, lockDuration: LEASE_MS, stalledInterval: LEASE_MS,
  });
}

async function bulk(queue, name, count) {
  const PER_CALL = 500;
  for (let sent = 0; sent < count; sent += PER_CALL) {
    const jobs = Array.from({ length: Math.min(PER_CALL, count - sent) }, () => ({ name, data: {}, opts: kept }));
    await queue.addBulk(jobs);
  }
}

async function produce(what, count) {
  const queue = new Queue("bench", { connection: connect() });
  await queue.waitUntilReady();
  const started = performance.now();
  if (what === "single") for (let i = 0; i < count; i++) await queue.add("noop", {}, kept);
  else if (what === "bulk") await bulk(queue, "noop", count);
  else if (what === "nap") await bulk(queue, "nap", count);
  else if (what === "paced") {
    for (let i = 0; i < count; i++) {
      await wait(Math.max(0, started + i * 20 - performance.now()));
      await queue.add("stamp", { sent: Date.now() }, kept);
    }
  } else if (what === "hold") await queue.add("hold", { seconds: count }, kept);
  console.log((performance.now() - started) / 1000);
  await queue.close();
  notes.disconnect();
  process.exit(0);
}

const [what, count] = [process.argv[2], Number(process.argv[3])];
if (what === "work") work(count);
else produce(what, count);
