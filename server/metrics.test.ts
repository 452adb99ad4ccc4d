import { expect, test } from '@jest/globals';
import { createMetrics } from './metrics.ts';

test('only a job that did something useful was successful; what jobs did is added up', async () => {
  const metrics = createMetrics();
  metrics.job({ job: 'prune', ended: 'done', seconds: 2, result: { versions: 3, files: 0 } });
  metrics.job({ job: 'prune', ended: 'cut', seconds: 2, result: { versions: 4, freed: -1 } });
  metrics.job({ job: 'delete-objects', ended: 'refused', seconds: 0.1, result: {} });
  metrics.job({ job: 'verify', ended: 'failed', seconds: 1, result: {} });
  const text = await metrics.render();
  expect(text).toMatch(/^holdfast_job_seconds_count\{job="prune",ended="cut"\} 1$/m);
  expect(text).toMatch(/^holdfast_job_seconds_count\{job="delete-objects",ended="refused"\} 1$/m);
  expect(text.match(/^holdfast_job_failures_total\{.*$/gm)).toEqual(['holdfast_job_failures_total{job="verify"} 1']);
  expect(text.match(/^holdfast_job_results_total\{.*$/gm)).toEqual([
    'holdfast_job_results_total{job="prune",result="versions"} 7',
  ]);
  const successes = text.match(/^holdfast_job_last_success_timestamp_seconds\{job="[^"]+"\}/gm);
  expect(successes).toEqual(['holdfast_job_last_success_timestamp_seconds{job="prune"}']);
});

test('the queues are asked once for all that is told of them; one that does not answer leaves what it said last', async () => {
  const metrics = createMetrics();
  let asked = 0;
  const state = { waiting: 2, active: 1, delayed: 0, failed: 3, oldestDueMs: 1_500 };
  metrics.observe({
    queues: async () => {
      if (++asked > 1) throw new Error('the queue is away');
      return { deleting: state };
    },
  });
  const lines = (text: string): string[] => text.match(/^holdfast_queue_\w+\{.*$/gm) ?? [];
  const told = lines(await metrics.render());
  expect(asked).toBe(1);
  expect(told).toEqual([
    'holdfast_queue_jobs{queue="deleting",state="waiting"} 2',
    'holdfast_queue_jobs{queue="deleting",state="active"} 1',
    'holdfast_queue_jobs{queue="deleting",state="delayed"} 0',
    'holdfast_queue_jobs{queue="deleting",state="failed"} 3',
    'holdfast_queue_oldest_due_seconds{queue="deleting"} 1.5',
  ]);
  expect(lines(await metrics.render())).toEqual(told);
});

test('the fence is told with its present reason, and no former one', async () => {
  const metrics = createMetrics();
  let state = { held: false, reason: 'starting' as string | null };
  metrics.observe({ fence: () => state });
  const line = async (): Promise<string[] | null> => (await metrics.render()).match(/^holdfast_deleting_held\{.*$/gm);
  expect(await line()).toEqual(['holdfast_deleting_held{reason="starting"} 0']);
  state = { held: true, reason: null };
  expect(await line()).toEqual(['holdfast_deleting_held{reason=""} 1']);
});
