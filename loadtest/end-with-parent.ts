/**
 * Loaded (`node --import`) into the programs a load test starts: ends them soon after whoever started them is gone, also
 * when that was killed and could not tell them.
 */
const parent = process.ppid;
const checkEveryMs = 250;

setInterval(() => {
  if (process.ppid !== parent) process.exit(143);
}, checkEveryMs).unref();
