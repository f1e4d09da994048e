// Keeps a page fresh, shows times by the reader's clock, and shows pictures and captions in step with the sound. A page
// makes sense without it. All it puts into the page is what the daemon sent as the page itself.
"use strict";

const main = document.getElementById("main");
const language = document.documentElement.lang;

// Times

const UNITS = [["day", 86400], ["hour", 3600], ["minute", 60]];
const relative = new Intl.RelativeTimeFormat(language, { numeric: "auto" });

function ago(at) {
  const seconds = (at - Date.now()) / 1000;
  if (Math.abs(seconds) < 60) return main.dataset.now;
  const [unit, length] = UNITS.find(([, each]) => Math.abs(seconds) >= each);
  return relative.format(Math.trunc(seconds / length), unit);
}

function showTimes(root) {
  for (const each of root.querySelectorAll("time[datetime]")) {
    const at = new Date(each.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    const exact = at.toLocaleString(language, { dateStyle: "medium", timeStyle: "short" });
    each.title = exact;
    each.textContent = "ago" in each.dataset ? ago(at) : exact;
  }
}

// Commands

function addCopy(root) {
  if (!navigator.clipboard) return; // browsers give it to secure addresses only
  for (const code of root.querySelectorAll("code[data-copy]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "key";
    button.textContent = code.dataset.copy;
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(code.textContent);
      say(code.dataset.copied);
      button.textContent = code.dataset.copied;
    });
    code.after(" ", button);
  }
}

// The player

const FADE_MS = 700;
const sound = () => document.querySelector("#listen audio");
const scenes = () => [...document.querySelectorAll(".scenes > [data-start]")];

function addJumps(root) {
  for (const head of root.querySelectorAll("[data-start] > [data-jump]")) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "jump";
    button.append(...head.childNodes);
    button.addEventListener("click", () => {
      const audio = sound();
      if (!audio) return;
      audio.currentTime = Number(head.parentElement.dataset.start);
      audio.play();
    });
    head.append(button);
  }
}

function addPlayer(root) {
  const audio = root.querySelector("audio");
  if (!audio) return;
  const stage = root.querySelector(".stage"), caption = root.querySelector(".caption");
  const cover = stage.querySelector("img")?.src;
  let wanted = cover;

  function show(picture) {
    if (!picture || picture === wanted) return;
    wanted = picture;
    const layer = new Image();
    layer.alt = "";
    layer.src = picture;
    layer.decode().catch(() => {}).then(() => {
      if (picture !== wanted) return;
      const before = [...stage.querySelectorAll("img")];
      caption.before(layer);
      requestAnimationFrame(() => requestAnimationFrame(() => layer.classList.add("shown")));
      setTimeout(() => before.forEach((each) => each.remove()), FADE_MS);
    });
  }

  function follow() {
    const isBegun = audio.currentTime > 0.05 || !audio.paused;
    const now = isBegun ? scenes().findLast((each) => Number(each.dataset.start) <= audio.currentTime + 0.01) : null;
    for (const each of scenes()) {
      if (each === now) each.setAttribute("aria-current", "true");
      else each.removeAttribute("aria-current");
    }
    show(isBegun ? now?.querySelector("img")?.src : cover);
  }

  ["timeupdate", "seeked", "play"].forEach((kind) => audio.addEventListener(kind, follow));
  const track = audio.textTracks[0], toggle = root.querySelector("button[aria-pressed]");
  if (!track || !toggle) return;
  const isOn = () => toggle.getAttribute("aria-pressed") === "true";
  const tell = () => {
    const words = [...(track.activeCues ?? [])].map((cue) => cue.getCueAsHTML().textContent).join(" ");
    caption.hidden = !isOn() || !words;
    caption.firstElementChild.textContent = words;
  };
  track.mode = "hidden"; // its words are read here, and shown over the pictures
  track.addEventListener("cuechange", tell);
  toggle.hidden = false;
  toggle.addEventListener("click", () => {
    toggle.setAttribute("aria-pressed", String(!isOn()));
    tell();
  });
}

function isHeard(part) {
  const audio = part.querySelector("audio");
  return audio && (!audio.paused || audio.currentTime > 0);
}

function dress(root) {
  showTimes(root);
  addCopy(root);
  addJumps(root);
  addPlayer(root);
}

// Fresh

const SAY_MS = 15000;
const AGAIN_MS = 10000;
const TIMES_MS = 30000;
const raw = new Map();
let source = null, again = 0, isRenewing = false, isWanted = false, saidAt = 0;

function say(words) {
  document.getElementById("said").textContent = words;
}

function isLive(yes) {
  const live = document.getElementById("live");
  live.dataset.words ??= live.textContent;
  live.textContent = yes ? live.dataset.words : live.dataset.stale;
  live.hidden = false;
  live.classList.toggle("stale", !yes);
}

function renewPart(fresh) {
  const old = document.getElementById(fresh.id);
  const markup = fresh.outerHTML;
  if (!old || raw.get(fresh.id) === markup || isHeard(old)) return;
  raw.set(fresh.id, markup);
  const held = old.contains(document.activeElement) ? document.activeElement.id : "";
  const part = document.importNode(fresh, true);
  old.replaceWith(part);
  dress(part);
  if (held) document.getElementById(held)?.focus({ preventScroll: true });
}

async function renew() {
  isWanted = true;
  if (isRenewing) return;
  isRenewing = true;
  try {
    while (isWanted) {
      isWanted = false;
      const answer = await fetch(location.href);
      if (!answer.ok) throw new Error(String(answer.status));
      const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
      const before = document.querySelector("h1")?.textContent;
      fresh.querySelectorAll("[data-live]").forEach(renewPart);
      main.dataset.seen = fresh.getElementById("main").dataset.seen ?? "";
      const now = document.querySelector("h1")?.textContent;
      if (now !== before && Date.now() - saidAt > SAY_MS) {
        saidAt = Date.now();
        say(now);
      }
    }
    isLive(true);
  } catch {
    isLive(false);
  }
  isRenewing = false;
}

function close() {
  clearTimeout(again);
  source?.close();
  source = null;
}

function open() {
  close();
  source = new EventSource(main.dataset.events);
  source.addEventListener("message", (event) => {
    if (event.data === main.dataset.seen) isLive(true);
    else renew();
  });
  source.addEventListener("error", () => {
    isLive(false);
    if (source?.readyState === EventSource.CLOSED) again = setTimeout(open, AGAIN_MS);
  });
}

document.querySelectorAll("[data-live]").forEach((part) => raw.set(part.id, part.outerHTML));
dress(document);
setInterval(() => { if (!document.hidden) showTimes(document); }, TIMES_MS);
if (main.dataset.events) {
  // A page that nobody looks at does not keep the daemon awake.
  document.addEventListener("visibilitychange", () => { if (document.hidden) close(); else open(); });
  if (!document.hidden) open();
}
