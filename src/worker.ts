import { serveAsWorker } from './app/planes.js';

await serveAsWorker();
