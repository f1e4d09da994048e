// Keeps the overview fresh, and shows times as the reader's clock has them. The page makes sense without it.
"use strict";

function localTimes(root) {
  for (const each of root.querySelectorAll("time[datetime]")) {
    const at = new Date(each.dateTime);
    if (!Number.isNaN(at.getTime())) each.textContent = at.toLocaleString(document.documentElement.lang);
  }
}

function renew(id, markup) {
  const part = document.getElementById(id);
  if (!part || part.dataset.markup === markup) return;
  const held = part.contains(document.activeElement) ? document.activeElement.id : "";
  part.dataset.markup = markup;
  part.innerHTML = markup;
  localTimes(part);
  if (held) document.getElementById(held)?.focus({ preventScroll: true });
}

function tell(isLive) {
  const live = document.getElementById("live");
  if (!live) return;
  live.dataset.words ??= live.textContent;
  live.textContent = isLive ? live.dataset.words : live.dataset.stale;
  live.hidden = false;
  live.className = isLive ? "good" : "bad";
}

localTimes(document);
const events = document.getElementById("main").dataset.events;
if (events) {
  const source = new EventSource(events);
  source.addEventListener("state", (event) => {
    for (const [id, markup] of Object.entries(JSON.parse(event.data))) renew(id, markup);
    tell(true);
  });
  source.addEventListener("error", () => tell(false));
}
