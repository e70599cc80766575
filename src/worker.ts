import { serveAsWorker } from './compose.js';

await serveAsWorker();
