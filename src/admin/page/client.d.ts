// The client that commands use too, served as client.js.
export { createApiClient } from '../../api/client.js';
