"use strict";
// The group browser. Whatever comes out of the data is put in as text, never as HTML.
(() => {
  const PAGE = 50;
  const groups = JSON.parse(document.getElementById("groups").textContent);
  const names = JSON.parse(document.getElementById("names").textContent);
  const form = document.getElementById("filters"), list = document.getElementById("list");
  const body = list.tBodies[0], columns = list.tHead.rows[0].cells.length;
  let shown = groups, first = 0, open = new Set();

  function make(tag, text, className) {
    const element = document.createElement(tag);
    if (text !== undefined) element.textContent = text;
    if (className) element.className = className;
    return element;
  }

  const figure = (value, digits = 3) => value === null ? "-" : value.toFixed(digits);
  const count = value => value === null ? "-" : String(value);
  const policy = version => version ? version.join("-") : "-";
  const idOf = group => `${group.run}.${group.number}`;

  function kindOf(group) {
    const right = group.completions.filter(one => one.status === "correct").length;
    return right === 0 ? "all wrong" : right === group.completions.length ? "all right" : "mixed";
  }

  function statusesOf(group) {
    const counts = new Map();
    for (const one of group.completions) if (one.status === "correct") counts.set("correct", 0);  // is told first
    for (const one of group.completions) counts.set(one.status, (counts.get(one.status) || 0) + 1);
    return [...counts].map(([status, times]) => `${times} ${status}`).join(", ");
  }

  function reachOf(group) {
    const rewards = group.completions.map(one => one.reward).filter(reward => reward !== null);
    return rewards.length ? `${figure(Math.min(...rewards), 2)} to ${figure(Math.max(...rewards), 2)}` : "-";
  }

  // Filters

  const bound = (name, otherwise) => form.elements[name].value === "" ? otherwise : Number(form.elements[name].value);
  const chosen = name => form.elements[name] ? form.elements[name].value : "";

  function matching() {
    const status = chosen("status"), words = chosen("text").toLowerCase();
    const least = bound("least", -Infinity), most = bound("most", Infinity);
    const oldest = bound("oldest", -Infinity), newest = bound("newest", Infinity);
    const anyReward = least === -Infinity && most === Infinity;
    const fits = one => (!status || one.status === status) &&
      (anyReward || (one.reward !== null && one.reward >= least && one.reward <= most));
    return groups.filter(group =>
      (!chosen("run") || String(group.run) === chosen("run")) &&
      (!chosen("outcome") || group.outcome === chosen("outcome")) &&
      (!chosen("kind") || group.kind === chosen("kind")) &&
      ((oldest === -Infinity && newest === Infinity) ||
        (group.oldest && group.newest[1] >= oldest && group.oldest[1] <= newest)) &&
      group.completions.some(fits) &&
      (!words || group.words.includes(words)));
  }

  function fill(name, values) {
    if (!form.elements[name]) return;
    for (const [value, label] of values) {
      const option = make("option", label);
      option.value = value;
      form.elements[name].append(option);
    }
  }

  // What is shown

  function row(group) {
    const line = make("tr"), head = make("th"), button = make("button", `${count(group.id)}`);
    button.type = "button";
    button.setAttribute("aria-expanded", String(open.has(idOf(group))));
    button.dataset.group = idOf(group);
    button.addEventListener("click", () => toggle(group, line, button));
    head.scope = "row";
    head.append(button);
    line.append(head);
    const span = policy(group.oldest) === policy(group.newest)
      ? policy(group.oldest) : `${policy(group.oldest)} to ${policy(group.newest)}`;
    const cells = [group.step, span, group.outcome, statusesOf(group), reachOf(group),
      figure(group.sigma_u), figure(group.weight, 2), group.question.slice(0, 120)];
    if (names.length > 1) cells.unshift(names[group.run]);
    for (const cell of cells) line.append(make("td", cell));
    return line;
  }

  function details(group) {
    const line = make("tr"), cell = make("td"), block = make("div", undefined, "group");
    cell.colSpan = columns;
    const facts = [["prompt", group.question], ["gold answer", group.gold]];
    for (const [label, text] of facts) block.append(make("h4", label), make("pre", text));
    const figures = [["attempt", count(group.attempt)], ["mode", group.mode], ["reward model", group.reward_model],
      ["w", figure(group.weight)], ["sigma_u", figure(group.sigma_u)], ["sigma_bar", figure(group.sigma_bar)],
      ["sigma_dev", figure(group.sigma_dev)], ["gated", group.gated ? "yes: the reward model is not trusted" : "no"]];
    block.append(pairs(figures));
    group.completions.forEach((one, place) => block.append(completion(one, place)));
    cell.append(block);
    line.append(cell);
    return line;
  }

  function pairs(figures) {
    const found = make("dl");
    for (const [label, value] of figures) found.append(make("dt", label), make("dd", value));
    return found;
  }

  function completion(one, place) {
    const block = make("section", undefined, "completion"), side = make("div");
    side.append(make("h4", `${place + 1}. ${one.status}`, one.status === "correct" ? "correct" : "wrong"));
    side.append(pairs([["reward", figure(one.reward)], ["advantage", figure(one.advantage)],
      ["r_hat", figure(one.r_hat)], ["RM score", figure(one.rm_score)],
      ["answer", one.extracted === null ? "-" : one.extracted], ["rule", one.rule === null ? "-" : one.rule],
      ["tokens", count(one.tokens)], ["finish", one.finish]]));
    block.append(side, make("pre", one.text));
    return block;
  }

  function toggle(group, line, button) {
    const id = idOf(group), opens = !open.has(id);
    if (opens) { open.add(id); line.after(details(group)); } else { open.delete(id); line.nextSibling.remove(); }
    button.setAttribute("aria-expanded", String(opens));
    keep();
  }

  function show() {
    first = Math.max(0, Math.min(first, Math.floor((shown.length - 1) / PAGE) * PAGE));
    const part = shown.slice(first, first + PAGE);
    body.replaceChildren(...part.flatMap(group => open.has(idOf(group)) ? [row(group), details(group)] : [row(group)]));
    const where = part.length ? `, ${first + 1} to ${first + part.length} are shown` : "";
    document.getElementById("count").textContent = `${shown.length} of ${groups.length} groups${where}`;
    document.getElementById("newer").disabled = first === 0;
    document.getElementById("older").disabled = first + PAGE >= shown.length;
    document.getElementById("pages").hidden = shown.length <= PAGE;
  }

  function leaf(by) {
    first += by;
    show();
    keep();
    document.getElementById("count").scrollIntoView({ block: "nearest" });
  }

  // Filters and open groups are in the address: they outlive a reload, and may be passed on

  function keep() {
    const state = new URLSearchParams();
    for (const [name, value] of new FormData(form)) if (value !== "") state.set(name, value);
    if (first) state.set("first", first);
    if (open.size) state.set("open", [...open].slice(0, 50).join(","));
    history.replaceState(null, "", state.size ? `#${state}` : location.pathname + location.search);
  }

  function recall() {
    const state = new URLSearchParams(location.hash.slice(1));
    for (const [name, value] of state) if (form.elements[name]) form.elements[name].value = value;
    open = new Set((state.get("open") || "").split(",").filter(Boolean));
    first = Number(state.get("first")) || 0;
  }

  function filter() {
    first = 0;
    shown = matching();
    show();
    keep();
  }

  for (const group of groups) {
    group.kind = kindOf(group);
    group.words = [group.question, group.gold, ...group.completions.map(one => one.text)].join("\n").toLowerCase();
  }
  fill("run", names.map((name, place) => [String(place), name]));
  fill("outcome", [...new Set(groups.map(group => group.outcome))].sort().map(one => [one, one]));
  fill("status", [...new Set(groups.flatMap(group => group.completions.map(one => one.status)))].sort().map(one => [one, one]));
  form.addEventListener("input", filter);
  form.addEventListener("submit", event => { event.preventDefault(); filter(); });
  form.addEventListener("reset", () => setTimeout(filter));
  document.getElementById("newer").addEventListener("click", () => leaf(-PAGE));
  document.getElementById("older").addEventListener("click", () => leaf(PAGE));
  addEventListener("hashchange", () => { if (location.hash.includes("=")) { recall(); shown = matching(); show(); } });
  form.hidden = list.hidden = false;
  recall();
  shown = matching();
  show();
})();
