// Progress and player come alive here. Without it the page refreshes itself, and each
// time in the transcript is a link into the sound.
"use strict";

const article = document.querySelector("article[data-status]");

function connectPlayer() {
  const audio = document.querySelector("#player audio");
  if (!audio || audio.dataset.connected) return;
  audio.dataset.connected = "yes";
  const waveform = document.querySelector("#player .waveform");
  const bars = [...waveform.querySelectorAll("rect")];
  waveform.classList.add("seekable");
  waveform.addEventListener("click", (event) => {
    const box = waveform.getBoundingClientRect();
    playFrom(audio, (audio.duration * (event.clientX - box.left)) / box.width);
  });
  audio.addEventListener("timeupdate", () => {
    const played = audio.currentTime / audio.duration;
    bars.forEach((bar, i) => bar.classList.toggle("played", i < played * bars.length));
    for (const passage of document.querySelectorAll(".passage")) {
      const now = audio.currentTime;
      const current = passage.dataset.start <= now && now < passage.dataset.end;
      passage.classList.toggle("current", current && !audio.paused);
    }
  });
}

function playFrom(audio, seconds) {
  if (!Number.isFinite(seconds)) return;
  audio.currentTime = seconds;
  audio.play();
}

function showStep(step) {
  const item = document.querySelector(`[data-step="${step.name}"]`);
  item.className = step.state;
  item.querySelector("[data-detail]").textContent = step.detail;
  item.querySelector("[data-note]").textContent = step.note;
}

async function replaceParts() {
  const page = await (await fetch(location.href)).text();
  const fresh = new DOMParser().parseFromString(page, "text/html");
  for (const id of ["heading", "player", "transcript", "similar"]) {
    const [old, now] = [document.getElementById(id), fresh.getElementById(id)];
    // A player that is playing stays.
    if (id === "player" && old.querySelector("audio")) continue;
    old.replaceWith(now);
  }
  document.title = fresh.title;
  connectPlayer();
}

async function follow(address) {
  let revision = null;
  for (;;) {
    try {
      const status = await (await fetch(address)).json();
      status.steps.forEach(showStep);
      document.querySelector(".steps progress").value = status.percent;
      document.querySelector("[data-live]").textContent = status.status;
      if (status.revision !== revision) await replaceParts();
      revision = status.revision;
      if (status.finished) return;
    } catch {
      // The web app may be starting again: ask later.
    }
    await new Promise((resolve) => setTimeout(resolve, document.hidden ? 5000 : 700));
  }
}

if (article) {
  connectPlayer();
  article.addEventListener("click", (event) => {
    const link = event.target.closest(".passage a");
    const audio = document.querySelector("#player audio");
    if (!link || !audio) return;
    event.preventDefault();
    playFrom(audio, Number(link.closest(".passage").dataset.start));
  });
  if (article.dataset.status) follow(article.dataset.status);
}
