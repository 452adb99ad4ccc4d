/**
 * What the server counts, for Prometheus. The only home of prom-client. Labels have few values: route patterns,
 * never paths; nothing about a device or a user.
 */
import { Counter, collectDefaultMetrics, Gauge, Histogram, Registry } from 'prom-client';

/** Values that are read when Prometheus asks. Each may be left out by a process that has no such thing. */
export interface MetricSources {
  budget?: () => {
    totalBytes: number;
    heldBytes: number;
    windowBytes: number;
    bodies: number;
    waiters: number;
    resets: number;
    refusals: number;
  };
  connections?: () => { connections: number; sessions: number; streams: number };
  databasePool?: () => { total: number; idle: number; waiting: number };
  /** Whether the fence holds, and if not why. */
  fence?: () => { held: boolean; reason: string | null };
  /** By queue; a failure leaves the last values. */
  queues?: () => Promise<Record<string, QueueNumbers>>;
  /** Others, each a gauge of its own. */
  numbers?: readonly MetricNumbers[];
}

/** A number, or one for each value of a label; a failure leaves the last. */
export interface MetricNumbers {
  /** Without the `holdfast_` that all begin with. */
  name: string;
  help: string;
  label?: string;
  read(): Promise<number | Record<string, number>>;
}

/** Jobs by state, and for how long (ms) the oldest has been due. */
export interface QueueNumbers {
  waiting: number;
  active: number;
  delayed: number;
  failed: number;
  oldestDueMs: number;
}

/**
 * How an operator's request to the dashboard signed in: `let_in`; `unsigned`, without name and password, as browsers first
 * ask; `wrong`, a name or password that is not right; `turned_away`, not judged: too many attempts, or too much to do.
 */
export type OperatorSignIn = 'let_in' | 'unsigned' | 'wrong' | 'turned_away';

/** With all done; cut, because its time was over; refused, because it may not be done now; failed. */
export type JobEnd = 'done' | 'cut' | 'refused' | 'failed';

export interface Metrics {
  readonly contentType: string;
  /** The text that Prometheus reads. */
  render(): Promise<string>;
  request(done: {
    method: string;
    route: string;
    status: number;
    seconds: number;
    bytesIn: number;
    bytesOut: number;
  }): void;
  inFlight(change: 1 | -1): void;
  blocks(result: { stored: number; storedBytes: number; known: number; knownBytes: number }): void;
  claimed(blocks: { asked: number; known: number }): void;
  versionsCommitted(count: number): void;
  clientError(kind: string): void;
  /** A device has said how a command ended. */
  commandEnded(kind: 'restore' | 'browse', end: 'completed' | 'incomplete' | 'failed' | 'cancelled'): void;
  operatorSignIn(result: OperatorSignIn): void;
  /** One run of a job. `result`: what it did, in numbers. */
  job(run: { job: string; ended: JobEnd; seconds: number; result: Record<string, number> }): void;
  /** Adds what only a running process can tell. */
  observe(sources: MetricSources): void;
}

/** From an answer out of a cache to a large upload over a slow line. */
const secondsBuckets = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300];
/** From a look that finds nothing to a comparison of a large bucket. */
const jobSecondsBuckets = [0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 600, 1_800, 3_600, 14_400];

export function createMetrics(): Metrics {
  const registers = [new Registry()];
  const registry = registers[0]!;
  collectDefaultMetrics({ register: registry });

  const counter = <L extends string>(name: string, help: string, labelNames: readonly L[] = []) =>
    new Counter({ name: `holdfast_${name}`, help, labelNames, registers });
  const gauge = <L extends string>(
    name: string,
    help: string,
    collect: (this: Gauge<L>) => void | Promise<void>,
    labelNames: readonly L[] = [],
  ) => new Gauge({ name: `holdfast_${name}`, help, labelNames, registers, collect });

  const requests = new Histogram({
    name: 'holdfast_http_request_seconds',
    help: 'Requests by route, from their headers to the end of their answer',
    labelNames: ['method', 'route', 'status'],
    buckets: secondsBuckets,
    registers,
  });
  const bytesIn = counter('http_received_bytes_total', 'Body bytes received, by route', ['route']);
  const bytesOut = counter('http_sent_bytes_total', 'Body bytes sent, by route', ['route']);
  const inFlight = new Gauge({ name: 'holdfast_http_requests_in_flight', help: 'Requests being served', registers });
  const blocks = counter('blocks_total', 'Blocks uploaded: stored now, or known already', ['outcome']);
  const blockBytes = counter('block_bytes_total', 'Bytes of blocks uploaded: stored now, or known already', [
    'outcome',
  ]);
  const claims = counter('claimed_blocks_total', 'Blocks asked about by claims: to send, or known already', [
    'outcome',
  ]);
  const versions = counter('versions_committed_total', 'File states committed');
  const clientErrors = counter('http_client_errors_total', 'Connections that broke the protocol or never finished it', [
    'kind',
  ]);

  const commands = counter('commands_ended_total', 'Commands that devices have ended, by kind and how', [
    'kind',
    'end',
  ]);

  const operatorSignIns = counter('operator_sign_ins_total', 'Requests to the dashboard, by how the sign-in ended', [
    'result',
  ]);

  const jobSeconds = new Histogram({
    name: 'holdfast_job_seconds',
    help: 'Runs of jobs, by how they ended: all done; cut, their time was over; refused, they may not be done now; failed',
    labelNames: ['job', 'ended'],
    buckets: jobSecondsBuckets,
    registers,
  });
  const jobFailures = counter('job_failures_total', 'Runs of jobs that failed; most are tried again', ['job']);
  const jobResults = counter('job_results_total', 'What jobs did, in their own numbers', ['job', 'result']);
  const jobSuccess = new Gauge({
    name: 'holdfast_job_last_success_timestamp_seconds',
    help: 'When a job last ended well in this process',
    labelNames: ['job'],
    registers,
  });

  // What was not stored again, of all that agents asked about or sent. 0: nothing known so far, or nothing happened.
  let known = 0;
  let seen = 0;
  gauge('dedup_ratio', 'Share of blocks claimed or uploaded since the start that were known already', function () {
    this.set(seen === 0 ? 0 : known / seen);
  });

  return {
    contentType: registry.contentType,
    render: () => registry.metrics(),
    request: (done) => {
      const status = String(done.status);
      requests.observe({ method: done.method, route: done.route, status }, done.seconds);
      if (done.bytesIn > 0) bytesIn.inc({ route: done.route }, done.bytesIn);
      if (done.bytesOut > 0) bytesOut.inc({ route: done.route }, done.bytesOut);
    },
    inFlight: (change) => inFlight.inc(change),
    blocks: (result) => {
      blocks.inc({ outcome: 'stored' }, result.stored);
      blocks.inc({ outcome: 'known' }, result.known);
      blockBytes.inc({ outcome: 'stored' }, result.storedBytes);
      blockBytes.inc({ outcome: 'known' }, result.knownBytes);
      seen += result.stored + result.known;
      known += result.known;
    },
    claimed: (claim) => {
      claims.inc({ outcome: 'known' }, claim.known);
      claims.inc({ outcome: 'to_send' }, claim.asked - claim.known);
      // Those to send are counted when they come.
      seen += claim.known;
      known += claim.known;
    },
    versionsCommitted: (count) => versions.inc(count),
    clientError: (kind) => clientErrors.inc({ kind }),
    commandEnded: (kind, end) => commands.inc({ kind, end }),
    operatorSignIn: (result) => operatorSignIns.inc({ result }),
    job: ({ job, ended, seconds, result }) => {
      jobSeconds.observe({ job, ended }, seconds);
      if (ended === 'failed') jobFailures.inc({ job });
      if (ended === 'done' || ended === 'cut') jobSuccess.set({ job }, Date.now() / 1_000);
      for (const [name, value] of Object.entries(result)) if (value > 0) jobResults.inc({ job, result: name }, value);
    },
    observe: (sources) => observe(sources, gauge),
  };
}

type MakeGauge = <L extends string>(
  name: string,
  help: string,
  collect: (this: Gauge<L>) => void | Promise<void>,
  labelNames?: readonly L[],
) => Gauge<L>;

function observe(sources: MetricSources, gauge: MakeGauge): void {
  const { budget, connections, databasePool, fence, queues, numbers = [] } = sources;
  for (const each of numbers) observeNumbers(each, gauge);
  if (budget) {
    gauge(
      'budget_bytes',
      'The byte budget: its size, what bodies hold, and what their stream windows may',
      function () {
        const now = budget();
        this.set({ part: 'total' }, now.totalBytes);
        this.set({ part: 'held' }, now.heldBytes);
        this.set({ part: 'windows' }, now.windowBytes);
      },
      ['part'] as const,
    );
    gauge(
      'budget_bodies',
      'Request bodies open, and waiting for room',
      function () {
        const now = budget();
        this.set({ state: 'open' }, now.bodies);
        this.set({ state: 'waiting' }, now.waiters);
      },
      ['state'] as const,
    );
    gauge(
      'budget_turned_away',
      'Bodies since the start that were reset for being slow, or refused for want of room',
      function () {
        const now = budget();
        this.set({ how: 'reset' }, now.resets);
        this.set({ how: 'refused' }, now.refusals);
      },
      ['how'] as const,
    );
  }
  if (connections) {
    gauge(
      'http_open',
      'Connections, HTTP/2 sessions and streams that are open',
      function () {
        const now = connections();
        this.set({ what: 'connections' }, now.connections);
        this.set({ what: 'sessions' }, now.sessions);
        this.set({ what: 'streams' }, now.streams);
      },
      ['what'] as const,
    );
  }
  if (databasePool) {
    gauge(
      'database_pool',
      'Connections to PostgreSQL, and verbs waiting for one',
      function () {
        const now = databasePool();
        this.set({ state: 'total' }, now.total);
        this.set({ state: 'idle' }, now.idle);
        this.set({ state: 'waiting' }, now.waiting);
      },
      ['state'] as const,
    );
  }
  if (fence) {
    gauge(
      'deleting_held',
      'Whether this worker may delete: 1, or 0 with the reason',
      function () {
        const { held, reason } = fence();
        this.reset();
        this.set({ reason: reason ?? '' }, held ? 1 : 0);
      },
      ['reason'] as const,
    );
  }
  if (queues) observeQueues(queues, gauge);
}

function observeNumbers({ name, help, label, read }: MetricNumbers, gauge: MakeGauge): void {
  gauge(
    name,
    help,
    async function () {
      const now = await read().catch(() => null);
      if (now === null) return;
      this.reset(); // what has no value any more is not to keep its last
      if (typeof now === 'number') this.set(now);
      else for (const [value, number] of Object.entries(now)) this.set({ [label!]: value }, number);
    },
    label === undefined ? [] : [label],
  );
}

function observeQueues(ask: NonNullable<MetricSources['queues']>, gauge: MakeGauge): void {
  // Both are asked for at once when Prometheus asks; the queues are asked once.
  let asked: ReturnType<typeof ask> | null = null;
  const states = (): ReturnType<typeof ask> => {
    asked ??= ask()
      .catch(() => ({}))
      .finally(() => {
        asked = null;
      });
    return asked;
  };
  gauge(
    'queue_jobs',
    'Jobs by queue and state',
    async function () {
      for (const [queue, { oldestDueMs: _, ...counts }] of Object.entries(await states()))
        for (const [state, count] of Object.entries(counts)) this.set({ queue, state }, count);
    },
    ['queue', 'state'] as const,
  );
  gauge(
    'queue_oldest_due_seconds',
    'For how long the oldest job has been due without being begun',
    async function () {
      for (const [queue, { oldestDueMs }] of Object.entries(await states())) this.set({ queue }, oldestDueMs / 1_000);
    },
    ['queue'] as const,
  );
}
