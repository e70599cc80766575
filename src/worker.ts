import { serveAsWorker } from './compose-plane.js';

await serveAsWorker();
