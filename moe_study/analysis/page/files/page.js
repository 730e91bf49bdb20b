/* What all scripts of the page share, the switch of colours, and what is said to those who listen.
   Text enters the page by textContent alone: no string is ever read as markup. */
"use strict";
const page = (() => {
  const data = JSON.parse(document.getElementById("data").textContent);

  /* A new element: its name, class, text and attributes. */
  function element(name, { kind, text, ...attributes } = {}, ...children) {
    const made = document.createElement(name);
    if (kind) made.className = kind;
    if (text !== undefined) made.textContent = text;
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  /* A list of names and values. */
  function list(rows) {
    const made = element("dl");
    for (const [name, value] of rows) made.append(element("dt", { text: name }), element("dd", { text: value }));
    return made;
  }

  function say(text) {
    document.getElementById("said").textContent = text;
  }

  const theme = document.getElementById("theme");
  function show(chosen) {
    if (chosen === "auto") delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = chosen;
  }
  theme.addEventListener("change", () => {
    show(theme.value);
    try { localStorage.setItem("moe_study colours", theme.value); } catch { /* from disk some browsers keep nothing */ }
  });
  try {
    const kept = localStorage.getItem("moe_study colours");
    if (["light", "dark"].includes(kept)) { theme.value = kept; show(kept); }
  } catch { /* as above */ }

  return { data, element, list, say };
})();
