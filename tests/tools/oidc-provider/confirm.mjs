// Confirms a login as a person with a browser would: node confirm.mjs ADDRESS LOGIN [BACK]. Prints the address that it is
// sent back to, if that begins with BACK.
const [address, login, back] = process.argv.slice(2);
const cookies = new Map();

async function load(url, fields) {
  for (let post = fields; ; post = undefined) {
    const headers = { cookie: [...cookies].map(([name, value]) => `${name}=${value}`).join('; ') };
    const init = post ? { method: 'POST', body: new URLSearchParams(post) } : {};
    const response = await fetch(url, { ...init, headers, redirect: 'manual' });
    for (const cookie of response.headers.getSetCookie()) {
      const [, name, value] = cookie.match(/^([^=]+)=([^;]*)/);
      cookies.set(name, value);
    }
    if (response.status < 300 || response.status >= 400) {
      return { url, text: await response.text() };
    }
    url = new URL(response.headers.get('location'), url).href;
    if (back && url.startsWith(back)) {
      console.log(url);
      process.exit(0);
    }
  }
}

let page = await load(address);
for (let step = 0; step < 8; step += 1) {
  const form = page.text.match(/<form[^>]*action="([^"]*)"[^>]*>([\s\S]*?)<\/form>/);
  if (!form) break;
  const fields = {};
  for (const [input] of form[2].matchAll(/<input[^>]*>/g)) {
    const name = input.match(/name="([^"]*)"/)?.[1];
    if (name) fields[name] = input.match(/value="([^"]*)"/)?.[1] ?? '';
  }
  if ('login' in fields) Object.assign(fields, { login, password: 'any' });
  page = await load(new URL(form[1], page.url).href, fields);
}
if (!/success/i.test(page.text)) {
  console.error(page.url, page.text);
  process.exit(1);
}
