"use strict";
// Reloading while a run goes on: at the same place, and not for ever where nobody writes the page any more.
(() => {
  const KEY = "hero-report", SAME_PAGES = 6;
  const note = document.getElementById("written"), every = Number(note.dataset.refresh);
  const before = JSON.parse(sessionStorage.getItem(KEY) || "{}");
  const same = before.written === note.dataset.written ? before.same + 1 : 0;

  function restore() {
    for (const id of before.details || []) if (document.getElementById(id)) document.getElementById(id).open = true;
    if (before.scroll) scrollTo(0, before.scroll);
    const focused = before.focus && document.querySelector(`button[data-group="${CSS.escape(before.focus)}"]`);
    if (focused) focused.focus({ preventScroll: true });
    sessionStorage.removeItem(KEY);
  }

  function reload() {
    const active = document.activeElement;
    if (active.closest("form") || !getSelection().isCollapsed) { setTimeout(reload, 1000); return; }  // somebody works here
    const details = [...document.querySelectorAll("details[open]")].map(one => one.id);
    sessionStorage.setItem(KEY, JSON.stringify(
      { written: note.dataset.written, same, scroll: scrollY, details, focus: active.dataset.group }));
    location.reload();
  }

  restore();
  if (every && same < SAME_PAGES) setTimeout(reload, every * 1000);
  else if (every) note.textContent += " No newer page has come for a while: reload it by hand.";
})();
