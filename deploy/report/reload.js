"use strict";
// Reloading while a run goes on: at the same place, and not for ever where nobody writes the page any more.
(() => {
  const KEY = "hero-report", PATIENCE_S = 120, PATIENCE_PAGES = 10, BUSY_MS = 3000;
  const note = document.getElementById("written"), every = Number(note.dataset.refresh);
  const before = JSON.parse(sessionStorage.getItem(KEY) || "{}");
  const since = before.written === note.dataset.written ? before.since : Date.now();

  // A page that grows moves what is read: its heading is where it was, not the number of pixels
  const headings = () => [...document.querySelectorAll("h1, h2, h3")];

  function restore() {
    for (const id of before.details || []) if (document.getElementById(id)) document.getElementById(id).open = true;
    const mark = headings().find(one => one.textContent === before.heading);
    if (mark) scrollBy({ top: mark.getBoundingClientRect().top - before.top, behavior: "instant" });
    const focused = before.focus && document.querySelector(before.focus);
    if (focused) focused.focus({ preventScroll: true });
    sessionStorage.removeItem(KEY);
  }

  let touched = 0;  // while somebody works here, the page stays
  for (const kind of ["keydown", "pointerdown"]) addEventListener(kind, () => { touched = Date.now(); });

  function reload() {
    const active = document.activeElement;
    const focus = active.name ? `[name=${CSS.escape(active.name)}]`
      : active.dataset.group ? `[data-group=${CSS.escape(active.dataset.group)}]` : "";
    if (Date.now() - touched < BUSY_MS || !getSelection().isCollapsed) { setTimeout(reload, 1000); return; }
    const details = [...document.querySelectorAll("details[open]")].map(one => one.id);
    const mark = headings().findLast(one => one.getBoundingClientRect().top < 1);
    const heading = mark && mark.textContent, top = mark && mark.getBoundingClientRect().top;
    sessionStorage.setItem(KEY, JSON.stringify(
      { written: note.dataset.written, since, heading, top, details, focus }));
    history.scrollRestoration = "manual";
    location.reload();
  }

  restore();
  const waited = (Date.now() - since) / 1000;
  if (every && waited < Math.max(PATIENCE_S, PATIENCE_PAGES * every)) setTimeout(reload, every * 1000);
  else if (every) note.textContent += " No newer page has come for a while: reload it by hand.";
})();
