// Requests to the server; each fault is an Error whose message says in words what went wrong.
"use strict";
async function reach(address, options) {
  return fetch(address, options).catch(() => { throw new Error("The server does not answer. Is it still running?"); });
}

// The server's answer as an object.
async function request(address, options) {
  const response = await reach(address, options), content = await response.json().catch(() => null);
  if (!response.ok || content == null) throw new Error(content?.detail ?? `The server failed (${response.status}); its terminal shows why.`);
  return content;
}
