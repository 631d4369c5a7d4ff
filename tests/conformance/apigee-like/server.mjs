// An emulation (ours, not a real product) of an Apigee-style gateway: raw Basic, every number a string, its own shape of errors.
//   POST /oauth2/v1/token   /hello
//   POST /_test/revoke token=...   /_test/issued?client=ID   how many tokens that client was given
import crypto from 'node:crypto';
import fs from 'node:fs';
import http from 'node:http';

const { PORT, CLIENTS } = process.env;
const clients = new Map(JSON.parse(fs.readFileSync(CLIENTS)).map((client) => [client.id, client]));
const scopes = 'pisp piisp aisp extended_transaction_history';
const ends = new Map(); // token => when it runs out
const issued = new Map(); // client id => tokens

function send(response, status, body) {
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));
}

function token(request, response, form) {
  const refuse = (status, ErrorCode, Error) => send(response, status, { ErrorCode, Error });
  const [, basic] = /^Basic (.+)$/i.exec(request.headers.authorization ?? '') ?? [];
  const pair = Buffer.from(basic ?? '', 'base64').toString();
  const client = clients.get(pair.split(':', 1)[0]);
  if (pair !== `${client?.id}:${client?.secret}`) return refuse(401, 'invalid_client', 'ClientId is Invalid');
  const grant = form.get('grant_type');
  if (!grant) return refuse(400, 'invalid_request', 'Required param : grant_type');
  if (grant !== 'client_credentials') return refuse(400, 'unsupported_grant_type', `Unsupported grant type : ${grant}`);
  const scope = form.get('scope') || scopes;
  if (!scope.split(' ').every((one) => scopes.split(' ').includes(one))) return refuse(400, 'invalid_scope', 'Invalid Scopes');
  const lifetime = client.lifetime ?? 1800;
  const access_token = crypto.randomBytes(14).toString('hex');
  ends.set(access_token, Date.now() + lifetime * 1000);
  issued.set(client.id, (issued.get(client.id) ?? 0) + 1);
  return send(response, 200, {
    refresh_token_expires_in: '0', api_product_list: '[psd2-stet-v1]', api_product_list_json: ['psd2-stet-v1'],
    organization_name: 'example-org', 'developer.email': 'dev@example.com', token_type: 'BearerToken',
    issued_at: String(Date.now()), client_id: client.id, access_token, application_name: 'example-app', scope,
    expires_in: String(lifetime - 1), refresh_count: '0', status: 'approved',
  });
}

function hello(request, response) {
  const [, value] = /^Bearer (\S+)$/i.exec(request.headers.authorization ?? '') ?? [];
  if (ends.get(value) > Date.now()) return send(response, 200, { message: 'hello' });
  const errorcode = 'keymanagement.service.invalid_access_token';
  return send(response, 401, { fault: { faultstring: 'Invalid Access Token', detail: { errorcode } } });
}

const server = http.createServer(async (request, response) => {
  let body = '';
  for await (const chunk of request) body += chunk;
  const form = new URLSearchParams(body);
  const url = new URL(request.url, 'http://unused');
  if (url.pathname === '/oauth2/v1/token' && request.method === 'POST') return token(request, response, form);
  if (url.pathname === '/hello') return hello(request, response);
  if (url.pathname === '/_test/revoke') return response.end(String(ends.delete(form.get('token'))));
  if (url.pathname === '/_test/issued') return response.end(String(issued.get(url.searchParams.get('client')) ?? 0));
  const faultstring = `Unable to identify proxy for host: default and url: ${url.pathname}`;
  const errorcode = 'messaging.adaptors.http.flow.ApplicationNotFound';
  return send(response, 404, { fault: { faultstring, detail: { errorcode } } });
});
server.listen(Number(PORT), '127.0.0.1', () => console.log('ready emulation'));
