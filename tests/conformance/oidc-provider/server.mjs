// oidc-provider as an authorization server for client credentials, with a small API in front of its token store.
//   /token   /token/revocation   /protected
//   /_test/issued?client=ID   how many tokens that client was given
import crypto from 'node:crypto';
import fs from 'node:fs';
import http from 'node:http';

// Node 20 lacks it, and the package calls it.
URL.parse ??= (url, base) => (URL.canParse(url, base) ? new URL(url, base) : null);
const { default: Provider } = await import('oidc-provider');
const { version } = JSON.parse(fs.readFileSync(new URL('node_modules/oidc-provider/package.json', import.meta.url)));

const { PORT, CLIENTS } = process.env;
const issuer = `http://127.0.0.1:${PORT}`;
const clients = JSON.parse(fs.readFileSync(CLIENTS));
const lifetimes = new Map(clients.map((client) => [client.id, client.lifetime ?? 3600]));
const key = crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' }).privateKey.export({ format: 'jwk' });

const provider = new Provider(issuer, {
  // The package refuses a client whose id or secret is not printable ASCII (RFC 6749, appendix A).
  clients: clients.filter(({ id, secret }) => /^[ -~]+$/.test(id + secret)).map(({ id, secret, method }) => ({
    client_id: id,
    client_secret: secret,
    token_endpoint_auth_method: method,
    grant_types: ['client_credentials'],
    redirect_uris: [],
    response_types: [],
    scope: 'read write',
  })),
  clientDefaults: { id_token_signed_response_alg: 'ES256' },
  jwks: { keys: [{ ...key, use: 'sig', alg: 'ES256' }] },
  cookies: { keys: ['unused'] },
  // `admin` exists and no client may have it; a scope that does not exist is dropped without a word.
  scopes: ['read', 'write', 'admin'],
  ttl: { ClientCredentials: (_ctx, _token, client) => lifetimes.get(client.clientId) },
  features: {
    clientCredentials: { enabled: true },
    devInteractions: { enabled: false },
    revocation: { enabled: true },
  },
});
provider.on('server_error', (_ctx, error) => console.error(error));

const issued = new Map();
provider.on('grant.success', (ctx) => {
  const { clientId } = ctx.oidc.client;
  issued.set(clientId, (issued.get(clientId) ?? 0) + 1);
});

async function api(request, response) {
  const [, value] = /^Bearer (.+)$/i.exec(request.headers.authorization ?? '') ?? [];
  const token = value && (await provider.ClientCredentials.find(value));
  if (token && !token.isExpired) return response.writeHead(200).end('hello');
  const error = value ? ', error="invalid_token", error_description="the token is expired, revoked or unknown"' : '';
  return response.writeHead(401, { 'www-authenticate': `Bearer realm="conformance"${error}` }).end();
}

const oauth = provider.callback();
const server = http.createServer((request, response) => {
  const url = new URL(request.url, issuer);
  if (url.pathname === '/protected') return api(request, response);
  if (url.pathname === '/_test/issued') return response.end(String(issued.get(url.searchParams.get('client')) ?? 0));
  return oauth(request, response);
});
server.listen(Number(PORT), '127.0.0.1', () => console.log(`ready ${version}`));
