// Shows how far a sign-up is, and where it goes on. `sign-up.json` is what your own server answers for the customer who is
// logged in: the body of GET /v1/sign-ups/{reference}. The gateway's token stays on your server and never comes here.
"use strict";

const PAGE = "https://connect.leap.energy";
const EVERY_MS = 15000;

const SESSION = {
  none: "Nothing yet.",
  unknown: "Something has arrived; we are looking at it.",
  begun: "You have begun.",
  under_way: "You are on your way.",
  closed: "The page was closed early. You can begin again.",
  completed: "Done. Thank you!",
};
const AUTHORIZATION = {
  begun: "waiting for you to log in",
  failed: "did not work; please try again",
  completed: "access is granted",
};

function leadsToLeap(link) {
  try {
    return new URL(link).origin === PAGE;
  } catch {
    return false;
  }
}

function show(found) {
  const button = document.getElementById("continue");
  const open = found.state !== "completed" && typeof found.link === "string" && leadsToLeap(found.link);
  button.hidden = !open;
  if (open) {
    button.href = found.link;
  } else {
    button.removeAttribute("href");
  }
  document.getElementById("unavailable").hidden = open || found.state === "completed";
  document.getElementById("state").textContent = SESSION[found.state] ?? SESSION.unknown;
  const rows = found.authorizations.map((one) => {
    const row = document.createElement("li");
    row.textContent = `${one.utility}: ${AUTHORIZATION[one.state] ?? "we are looking at it"}`;
    return row;
  });
  document.getElementById("authorizations").replaceChildren(...rows);
}

async function look() {
  try {
    const answer = await fetch("sign-up.json", { cache: "no-store" });
    if (!answer.ok) throw new Error(String(answer.status));
    show(await answer.json());
  } catch {
    show({ state: "none", link: null, authorizations: [] });
  }
}

look();
setInterval(look, EVERY_MS);
