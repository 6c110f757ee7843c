// An issuer on loopback for tests: node issuer.mjs. Prints its address. Whoever logs in is <login>@example.org in group ops.
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
    }],
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
