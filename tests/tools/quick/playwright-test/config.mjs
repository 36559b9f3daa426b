import { join } from 'node:path';

export default {
  testDir: '.',
  outputDir: join(process.env.FOLDER, 'results'),
  workers: 1,
  reporter: 'line',
};
