// An issuer on loopback for tests: node issuer.mjs. Prints its address. A person who logs in is <login>@example.org in group ops.
import { createServer } from 'node:http';
import Provider from 'oidc-provider';

const server = createServer((request, response) => handle(request, response));
let handle = (_, response) => response.writeHead(503).end();
server.listen(0, '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    clients: [{
      client_id: 'fleet',
      token_endpoint_auth_method: 'none',
      grant_types: ['urn:ietf:params:oauth:grant-type:device_code'],
      redirect_uris: [],
      response_types: [],
    }, {
      client_id: 'fleet-browser',
      client_secret: 'kept-at-the-hub',
      application_type: 'native',
      token_endpoint_auth_method: 'client_secret_post',
      grant_types: ['authorization_code'],
      // Of a native client the port of a loopback address is its own choice (RFC 8252).
      redirect_uris: ['http://127.0.0.1/callback'],
      response_types: ['code'],
    }],
    pkce: { required: () => true },
    features: { deviceFlow: { enabled: true }, devInteractions: { enabled: true } },
    conformIdTokenClaims: false,
    claims: { openid: ['sub'], email: ['email', 'email_verified'], profile: ['groups'] },
    findAccount: (_, id) => ({
      accountId: id,
      claims: () => ({ sub: id, email: `${id}@example.org`, email_verified: true, groups: ['ops'] }),
    }),
  });
  handle = provider.callback();
  console.log(issuer);
});
