/** What staged restores take in the bucket, for the metrics. A handful of rows, asked for with every look. */
import type { Database } from '../storage/catalog/database.ts';
import { readStagedFigures } from './directory/restores/staging/rows.ts';
import type { MetricNumbers } from './metrics.ts';

export function stagingMetrics(database: Database): MetricNumbers[] {
  const by = (what: 'archives' | 'bytes') => async (): Promise<Record<string, number>> => {
    const figures = await readStagedFigures(database);
    return { staging: 0, ready: 0, dead: 0, ...Object.fromEntries(figures.map((each) => [each.state, each[what]])) };
  };
  return [
    {
      name: 'staged_restores',
      help: 'Staged restores: being made, to be fetched, and to be deleted',
      label: 'state',
      read: by('archives'),
    },
    {
      name: 'staged_bytes',
      help: 'Bytes in the bucket that they take, or have reserved',
      label: 'state',
      read: by('bytes'),
    },
  ];
}
