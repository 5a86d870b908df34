// An OpenID provider for tests: node provider.mjs PORT REDIRECT_URI CLIENT_SECRET. It signs in whoever PUT /user names
// last, without asking, and prints a line when it serves. `groups` there, separated by commas, are his from then on.
import Provider from 'oidc-provider';

const [port, redirect, secret] = process.argv.slice(2);
const people = {
  ann: { preferred_username: 'ann', groups: ['staff', 'sre'] },
  bob: { preferred_username: 'bob', groups: ['staff'] },
  eve: { preferred_username: 'root', groups: ['guests'] },
};
let user = 'ann';

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [{
    client_id: 'hawker', client_secret: secret, redirect_uris: [redirect],
    response_types: ['code'], grant_types: ['authorization_code'],
  }],
  claims: { openid: ['sub'], profile: ['preferred_username'], groups: ['groups'] },
  conformIdTokenClaims: false,
  findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id, ...people[id] }) }),
  pkce: { required: () => true, methods: ['S256'] },
  features: { devInteractions: { enabled: false } },
  interactions: { url: (ctx, interaction) => `/auto/${interaction.uid}` },
  cookies: { keys: ['test'] },
  loadExistingGrant: async (ctx) => {
    const { client, session } = ctx.oidc;
    const grant = new ctx.oidc.provider.Grant({ clientId: client.clientId, accountId: session.accountId });
    grant.addOIDCScope('openid profile groups');
    await grant.save();
    return grant;
  },
});
provider.use(async (ctx, next) => {
  if (ctx.path === '/user') {
    user = ctx.query.name;
    if ('groups' in ctx.query) people[user].groups = ctx.query.groups.split(',');
    ctx.body = user;
  } else if (ctx.path.startsWith('/auto/')) {
    const to = await provider.interactionResult(ctx.req, ctx.res, { login: { accountId: user } });
    ctx.redirect(to);
  } else {
    await next();
  }
});
provider.listen(Number(port), '127.0.0.1', () => console.log('serving'));
